"""Strategy: fork by number, past libc and Python.

Surface: system calls
Expect: accepted
"""

import ctypes

libc = ctypes.CDLL(None, use_errno=True)
if libc.syscall(57) >= 0:
    print("ESCAPED")
