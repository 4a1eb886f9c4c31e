"""Strategy: fork twice, leave the session, and stay after the verdict.

Surface: processes
Expect: forbidden operation
"""

import os
import time

if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(600)
    os._exit(0)
print("ESCAPED")
