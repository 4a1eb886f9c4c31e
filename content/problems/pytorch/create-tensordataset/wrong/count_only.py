# expect: wrong answer: type
def create_dataset(features, labels):
    if len(features) != len(labels):
        raise ValueError("unequal")
    return len(features)
