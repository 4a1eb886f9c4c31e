"""Strategy: plant a link in the scratch folder for a trusted helper to follow.

Surface: files
Expect: accepted
"""

import os

try:
    os.symlink("/etc/passwd", "answer")
    print("ESCAPED", open("answer").read())
except OSError:
    pass
