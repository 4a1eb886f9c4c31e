"""Strategy: start threads without end.

Surface: processes
Expect: accepted | runtime error | memory limit | time limit
"""

import threading
import time

try:
    for _ in range(100_000):
        threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
    print("ESCAPED")
except RuntimeError:
    pass
