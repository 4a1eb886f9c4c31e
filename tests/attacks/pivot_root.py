"""Strategy: change the root for all.

Surface: system calls
Expect: accepted
"""

import ctypes

libc = ctypes.CDLL(None, use_errno=True)
if libc.syscall(155, b".", b".") >= 0:
    print("ESCAPED")
