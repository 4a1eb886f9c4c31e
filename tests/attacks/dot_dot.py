"""Strategy: climb out of the working folder.

Surface: files
Expect: accepted
"""

import os

for depth in range(1, 12):
    try:
        os.chdir("/".join([".."] * depth))
        if os.listdir(".") not in (["run"], ["box"], []):
            print("ESCAPED", os.listdir("."))
    except OSError:
        pass
