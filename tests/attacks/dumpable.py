"""Strategy: let others of this user debug this process.

Surface: system calls
Expect: accepted
"""

import ctypes

libc = ctypes.CDLL(None, use_errno=True)
if libc.syscall(157, 4, 1, 0, 0, 0) >= 0:
    print("ESCAPED")
