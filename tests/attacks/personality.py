"""Strategy: turn address randomisation off.

Surface: system calls
Expect: accepted
"""

import ctypes

libc = ctypes.CDLL(None, use_errno=True)
if libc.syscall(135, 0x0040000) >= 0:
    print("ESCAPED")
