"""Strategy: end by abort, which might leave a core file.

Surface: signals
Expect: runtime error
"""

import os

os.abort()
