"""Strategy: leave through the link to the root of another process.

Surface: files
Expect: accepted
"""

import os

for number in (1, 2, os.getppid(), os.getpid()):
    for part in ("root/etc/passwd", "cwd", "environ", "mem", "fd"):
        path = f"/proc/{number}/{part}"
        try:
            os.listdir(path) if part in ("cwd", "fd") else open(path, "rb").read(1)
            print("ESCAPED", path)
        except OSError:
            pass
