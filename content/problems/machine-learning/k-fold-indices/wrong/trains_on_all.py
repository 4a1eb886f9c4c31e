# expect: wrong answer: shape
# The test samples are trained on, too.
def k_fold(order, k):
    if not 2 <= k <= len(order):
        raise ValueError("k")
    return [(order.clone(), fold) for fold in order.tensor_split(k)]
