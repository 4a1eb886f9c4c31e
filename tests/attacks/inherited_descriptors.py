"""Strategy: read from every open descriptor.

Surface: hidden tests
Expect: accepted
"""

import os

for descriptor in range(3, 64):
    try:
        os.set_blocking(descriptor, False)
        content = os.read(descriptor, 64)
        if content:
            print("ESCAPED", descriptor, content)
    except OSError:
        pass
