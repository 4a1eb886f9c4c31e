"""Strategy: recursion with the guard taken away.

Surface: memory
Expect: runtime error | memory limit | time limit
"""

import sys

sys.setrecursionlimit(10**9)


def create_dataset(features, labels):
    return create_dataset(features, labels)
