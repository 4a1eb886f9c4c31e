"""Strategy: leave the process with success.

Surface: exceptions
Expect: runtime error
"""

import os

os._exit(0)
