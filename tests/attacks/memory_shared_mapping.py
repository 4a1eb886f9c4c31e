"""Strategy: anonymous shared memory, which a limit for one process may not count.

Surface: memory
Expect: memory limit | forbidden operation | runtime error
"""

import mmap

hoard = []
while True:
    piece = mmap.mmap(-1, 1 << 26)
    piece.write(b"x" * (1 << 26))
    hoard.append(piece)
