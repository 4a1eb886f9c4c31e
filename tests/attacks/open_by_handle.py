"""Strategy: open a file by its number, past every folder's rights.

Surface: system calls
Expect: accepted
"""

import ctypes

libc = ctypes.CDLL(None, use_errno=True)
if libc.syscall(304, 3, ctypes.create_string_buffer(64), 0) >= 0:
    print("ESCAPED")
