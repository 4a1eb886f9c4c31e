"""Strategy: replace the functions of the judge's half that runs here.

Surface: result channel
Expect: wrong answer: unreadable | runtime error | wrong answer: type
"""

import sys

child = sys.modules["etude.practice.judge.runner"]
child.encode = lambda value: b"accepted"
child._describe = lambda error: {"kind": "accepted"}


def create_dataset(features, labels):
    return None
