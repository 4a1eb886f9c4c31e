"""Strategy: an object that equals everything.

Surface: comparison
Expect: wrong answer: type
"""


class Right:
    def __eq__(self, other):
        return True

    def __hash__(self):
        return 0

    def __len__(self):
        return 2

    def __iter__(self):
        return iter((self, self))


def create_dataset(features, labels):
    return Right()
