"""Strategy: link a file of the host into the scratch folder.

Surface: files
Expect: accepted
"""

import os

try:
    os.link("/etc/passwd", "passwd")
    print("ESCAPED")
except OSError:
    pass
