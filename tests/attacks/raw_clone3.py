"""Strategy: the newest way to make a process, whose flags a filter cannot see.

Surface: system calls
Expect: accepted
"""

import ctypes

libc = ctypes.CDLL(None, use_errno=True)
if libc.syscall(435, ctypes.create_string_buffer(88), 88) >= 0:
    print("ESCAPED")
