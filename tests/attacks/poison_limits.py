"""Strategy: lower the limits of the process that forks the next run.

Surface: next run
Expect: accepted
"""

import os
import resource

for number in (1, os.getppid()):
    try:
        if number not in (0, os.getpid()):
            resource.prlimit(number, resource.RLIMIT_AS, (1 << 20, 1 << 20))
            print("ESCAPED")
    except (OSError, ValueError):
        pass
