"""Strategy: mount a file system.

Surface: system calls
Expect: accepted
"""

import ctypes

libc = ctypes.CDLL(None, use_errno=True)
if libc.syscall(165, b"none", b"/", b"tmpfs", 0, 0) >= 0:
    print("ESCAPED")
