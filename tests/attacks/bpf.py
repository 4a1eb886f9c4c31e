"""Strategy: load a program into the kernel.

Surface: system calls
Expect: accepted
"""

import ctypes

libc = ctypes.CDLL(None, use_errno=True)
if libc.syscall(321, 0, ctypes.create_string_buffer(128), 128) >= 0:
    print("ESCAPED")
