"""Strategy: become root in a namespace of one's own.

Surface: system calls
Expect: accepted
"""

import ctypes

libc = ctypes.CDLL(None, use_errno=True)
if libc.syscall(272, 0x10000000) >= 0:
    print("ESCAPED")
