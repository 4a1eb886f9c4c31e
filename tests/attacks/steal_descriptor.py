"""Strategy: take a descriptor out of another process.

Surface: system calls
Expect: accepted
"""

import ctypes

libc = ctypes.CDLL(None, use_errno=True)
if libc.syscall(438, 3, 3, 0) >= 0:
    print("ESCAPED")
