"""Strategy: ask the kernel for its interfaces.

Surface: system calls
Expect: accepted
"""

import ctypes

libc = ctypes.CDLL(None, use_errno=True)
if libc.syscall(41, 16, 3, 0) >= 0:
    print("ESCAPED")
