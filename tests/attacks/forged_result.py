"""Strategy: write accepted answers to every descriptor oneself.

Surface: result channel
Expect: wrong answer: type | wrong answer: unreadable
"""

import json
import os
import struct


def create_dataset(features, labels):
    for index in range(64):
        header = json.dumps(
            {
                "t": "dict",
                "v": [
                    ["event", "answer"],
                    ["index", index],
                    ["answer", None],
                    ["verdict", "accepted"],
                ],
            }
        ).encode()
        for descriptor in range(3, 16):
            try:
                os.write(descriptor, struct.pack("<IQ", len(header), 0) + header)
            except OSError:
                pass
    return None
