"""Strategy: system calls by way of a ring that filters do not see.

Surface: system calls
Expect: accepted
"""

import ctypes

libc = ctypes.CDLL(None, use_errno=True)
if libc.syscall(425, 8, ctypes.create_string_buffer(128)) >= 0:
    print("ESCAPED")
