"""Strategy: an answer that contains itself.

Surface: result channel
Expect: wrong answer: type
"""


def create_dataset(features, labels):
    answer = []
    answer.append(answer)
    return answer
