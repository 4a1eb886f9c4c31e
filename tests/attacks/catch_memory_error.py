"""Strategy: catch the error of the limit and go on without end.

Surface: memory
Expect: time limit | memory limit
"""

hoard = []
while True:
    try:
        hoard.append(bytearray(1 << 26))
    except MemoryError:
        pass
