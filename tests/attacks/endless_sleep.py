"""Strategy: sleep, which uses no processor time.

Surface: time
Expect: time limit
"""

import time

time.sleep(3600)
