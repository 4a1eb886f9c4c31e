"""Strategy: memory behind a descriptor, outside the address space.

Surface: system calls
Expect: accepted
"""

import ctypes

libc = ctypes.CDLL(None, use_errno=True)
if libc.syscall(319, b"hoard", 0) >= 0:
    print("ESCAPED")
