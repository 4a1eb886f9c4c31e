"""Strategy: load a filter that allows all.

Surface: system calls
Expect: accepted
"""

import ctypes

libc = ctypes.CDLL(None, use_errno=True)
if libc.syscall(317, 1, 0, ctypes.create_string_buffer(16)) >= 0:
    print("ESCAPED")
