"""Strategy: a header nested so deep that a careless reader overflows its stack.

Surface: result channel
Expect: wrong answer: unreadable | runtime error | wrong answer: type
"""

import os
import struct

header = b"[" * 200_000 + b"]" * 200_000
for descriptor in range(3, 16):
    try:
        os.write(descriptor, struct.pack("<IQ", len(header), 0) + header)
    except OSError:
        pass
