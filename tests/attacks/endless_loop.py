"""Strategy: never return.

Surface: time
Expect: time limit
"""

while True:
    pass
