"""Strategy: start a shell through libc, which forks by itself.

Surface: processes
Expect: accepted
"""

import os

if os.system("true") == 0:
    print("ESCAPED")
