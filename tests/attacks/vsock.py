"""Strategy: talk to the hypervisor.

Surface: system calls
Expect: accepted
"""

import ctypes

libc = ctypes.CDLL(None, use_errno=True)
if libc.syscall(41, 40, 1, 0) >= 0:
    print("ESCAPED")
