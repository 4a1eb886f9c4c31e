"""Strategy: append until memory is gone.

Surface: memory
Expect: memory limit
"""

hoard = []
while True:
    hoard.append(bytearray(1 << 24))
