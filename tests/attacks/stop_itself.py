"""Strategy: stop in the hope that the judge waits for ever.

Surface: signals
Expect: accepted
"""

import os
import signal

try:
    os.kill(os.getpid(), signal.SIGSTOP)
    print("ESCAPED")
except OSError:
    pass
