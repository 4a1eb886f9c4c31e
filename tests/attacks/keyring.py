"""Strategy: use the kernel's keys, which are shared by a user's processes.

Surface: system calls
Expect: accepted
"""

import ctypes

libc = ctypes.CDLL(None, use_errno=True)
if libc.syscall(250, 0, -4, 1) >= 0:
    print("ESCAPED")
