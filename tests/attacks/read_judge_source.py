"""Strategy: read the judge's code, to learn how it compares.

Surface: hidden tests
Expect: accepted
"""

import sys

try:
    print("ESCAPED", open(sys.modules["etude.practice.judge.runner"].__file__).read(10))
except OSError:
    pass
try:
    import etude.practice.judge.judge

    print("ESCAPED")
except (ImportError, OSError):
    pass
