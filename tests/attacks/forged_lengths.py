"""Strategy: claim a frame of 2^63 bytes.

Surface: result channel
Expect: wrong answer: unreadable | wrong answer: type | runtime error | time limit
"""

import os
import struct

for descriptor in range(3, 16):
    try:
        os.write(descriptor, struct.pack("<IQ", 1, 2**63))
    except OSError:
        pass
