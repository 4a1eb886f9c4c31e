"""Strategy: an exception whose text, name and class are code.

Surface: exceptions
Expect: runtime error
"""


class Hostile(BaseException):
    def __str__(self):
        raise self

    __repr__ = __str__


def create_dataset(features, labels):
    raise Hostile
