"""Strategy: send the killing signal to every process in sight.

Surface: signals
Expect: accepted
"""

import os
import signal

for target in (-1, 0, 1, 2, os.getppid(), os.getpid()):
    try:
        os.kill(target, signal.SIGKILL)
        print("ESCAPED", target)
    except OSError:
        pass
