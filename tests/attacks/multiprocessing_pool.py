"""Strategy: let Python's own library start workers.

Surface: processes
Expect: forbidden operation | runtime error
"""

import multiprocessing

multiprocessing.Pool(2)
print("ESCAPED")
