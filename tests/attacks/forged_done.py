"""Strategy: say that all is done and leave.

Surface: result channel
Expect: runtime error | wrong answer: unreadable | wrong answer: type
"""

import json
import os
import struct

header = json.dumps({"t": "dict", "v": [["event", "done"], ["verdict", "accepted"]]}).encode()
for descriptor in range(3, 16):
    try:
        os.write(descriptor, struct.pack("<IQ", len(header), 0) + header)
    except OSError:
        pass
os._exit(0)
