"""Strategy: copy the parent's memory.

Surface: system calls
Expect: accepted
"""

import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)
for number in (os.getppid(), 1, 2):
    if libc.process_vm_readv(number, None, 0, None, 0, 0) >= 0:
        print("ESCAPED")
