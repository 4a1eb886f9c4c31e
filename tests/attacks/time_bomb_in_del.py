"""Strategy: hang when the answer is freed.

Surface: time
Expect: time limit | accepted | wrong answer: type
"""


class Bomb:
    def __del__(self):
        while True:
            pass


def create_dataset(features, labels):
    return Bomb()
