"""Strategy: write to the terminal's descriptor for ever.

Surface: output
Expect: output limit
"""

import os

while True:
    os.write(1, b"x" * 65536)
