"""Strategy: enter another process' namespace.

Surface: system calls
Expect: accepted
"""

import ctypes

libc = ctypes.CDLL(None, use_errno=True)
if libc.syscall(308, 3, 0) >= 0:
    print("ESCAPED")
