"""Strategy: leave a file in the scratch folder for the next run to import.

Surface: next run
Expect: accepted
"""

import os

if os.path.exists("torch.py"):
    print("ESCAPED")
try:
    with open("torch.py", "w") as file:
        file.write("raise SystemExit")
except OSError:
    pass
