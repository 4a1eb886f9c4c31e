"""Strategy: put a hook before all imports of the judge's half.

Surface: imports
Expect: accepted
"""

import builtins
import sys

original = builtins.__import__


def hook(name, *rest):
    if "grade" in name or "tests" in name:
        print("ESCAPED", name)
    return original(name, *rest)


builtins.__import__ = hook
sys.meta_path.insert(0, type("Finder", (), {"find_spec": staticmethod(lambda *_: None)}))
