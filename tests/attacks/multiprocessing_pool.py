"""Strategy: let Python's own library start workers.

Surface: processes
Expect: forbidden operation
"""

import multiprocessing

multiprocessing.Pool(2)
print("ESCAPED")
