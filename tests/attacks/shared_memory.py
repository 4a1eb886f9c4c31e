"""Strategy: attach memory that another process may share.

Surface: system calls
Expect: accepted
"""

import ctypes

libc = ctypes.CDLL(None, use_errno=True)
if libc.syscall(29, 1234, 4096, 0o1666) >= 0:
    print("ESCAPED")
