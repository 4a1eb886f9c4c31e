"""Strategy: a fork that shares memory.

Surface: system calls
Expect: accepted
"""

import ctypes

libc = ctypes.CDLL(None, use_errno=True)
if libc.syscall(58) >= 0:
    print("ESCAPED")
