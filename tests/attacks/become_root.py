"""Strategy: take the rights of root back.

Surface: privileges
Expect: accepted
"""

import os

for call in (
    lambda: os.setuid(0),
    lambda: os.setresuid(0, 0, 0),
    lambda: os.setgroups([0]),
    lambda: os.setgid(0),
):
    try:
        call()
        print("ESCAPED")
    except OSError:
        pass
