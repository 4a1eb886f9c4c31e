"""Strategy: double the processes until nothing else gets a turn.

Surface: processes
Expect: accepted
"""

import os

for _ in range(1000):
    try:
        if os.fork() == 0:
            while True:
                pass
        print("ESCAPED")
    except OSError:
        pass
