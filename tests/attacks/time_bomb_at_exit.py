"""Strategy: answer, and hang in what runs at the end.

Surface: time
Expect: accepted
"""

import atexit
import time

atexit.register(time.sleep, 600)
