"""Strategy: write until the disk is full.

Surface: files
Expect: accepted
"""

import os

try:
    with open("fill", "wb", buffering=0) as file:
        for _ in range(1 << 12):
            file.write(b"x" * (1 << 20))
    print("ESCAPED")
except OSError:
    pass
assert not os.path.exists("fill") or os.path.getsize("fill") <= 16 << 20
