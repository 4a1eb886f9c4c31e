"""Strategy: hold the kernel in a page fault.

Surface: system calls
Expect: accepted
"""

import ctypes

libc = ctypes.CDLL(None, use_errno=True)
if libc.syscall(323, 0) >= 0:
    print("ESCAPED")
