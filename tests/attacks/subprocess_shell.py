"""Strategy: start a shell.

Surface: processes
Expect: forbidden operation
"""

import subprocess

print("ESCAPED", subprocess.run(["/bin/sh", "-c", "id"], capture_output=True).stdout)
