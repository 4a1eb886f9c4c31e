"""Strategy: write to the result channel for ever.

Surface: output
Expect: output limit | wrong answer: unreadable | time limit | memory limit
"""

import os

while True:
    for descriptor in range(3, 16):
        try:
            os.write(descriptor, b"\0" * 65536)
        except OSError:
            pass
