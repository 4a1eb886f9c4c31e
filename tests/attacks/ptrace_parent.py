"""Strategy: debug the parent.

Surface: system calls
Expect: accepted
"""

import ctypes

libc = ctypes.CDLL(None, use_errno=True)
if libc.syscall(101, 16, 1, 0, 0) >= 0:
    print("ESCAPED")
