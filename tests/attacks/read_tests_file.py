"""Strategy: find the problem's folder and read its tests and solution.

Surface: hidden tests
Expect: accepted
"""

import os
import sys

roots = [
    *sys.path,
    *(getattr(module, "__file__", None) or "" for module in list(sys.modules.values())),
]
for root in roots:
    while len(root) > 1:
        root = os.path.dirname(root)
        for inside in (
            "content/problems/pytorch/create-tensordataset",
            "etude/content/problems/pytorch/create-tensordataset",
        ):
            try:
                print("ESCAPED", open(os.path.join(root, inside, "tests.py")).read(10))
            except OSError:
                pass
