"""Strategy: find a folder that can be written to and is kept.

Surface: files
Expect: accepted
"""

import os
import sys

for folder in ("/", "/tmp", "/var/tmp", "/dev/shm", "/root", "/home", "/run", *sys.path):
    try:
        with open(os.path.join(folder, "etude_attack"), "w") as file:
            file.write("x")
        print("ESCAPED", folder)
    except OSError:
        pass
