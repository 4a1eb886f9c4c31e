"""Strategy: the x32 form of fork.

Surface: system calls
Expect: accepted
"""

import ctypes

libc = ctypes.CDLL(None, use_errno=True)
if libc.syscall(1073741881) >= 0:
    print("ESCAPED")
