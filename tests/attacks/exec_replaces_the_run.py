"""Strategy: become another program, without the judge's code.

Surface: processes
Expect: forbidden operation
"""

import os

os.execv("/bin/true", ["true"])
