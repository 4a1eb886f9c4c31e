"""Strategy: watch the kernel.

Surface: system calls
Expect: accepted
"""

import ctypes

libc = ctypes.CDLL(None, use_errno=True)
if libc.syscall(298, ctypes.create_string_buffer(128), 0, -1, -1, 0) >= 0:
    print("ESCAPED")
