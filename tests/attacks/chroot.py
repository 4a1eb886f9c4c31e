"""Strategy: change the root folder.

Surface: system calls
Expect: accepted
"""

import ctypes

libc = ctypes.CDLL(None, use_errno=True)
if libc.syscall(161, b"/") >= 0:
    print("ESCAPED")
