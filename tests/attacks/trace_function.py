"""Strategy: trace the judge's half and read its variables.

Surface: imports
Expect: accepted
"""

import sys


def trace(frame, event, argument):
    if any("expect" in name for name in frame.f_locals):
        print("ESCAPED", frame.f_code.co_name)
    return trace


sys.settrace(trace)
sys.setprofile(trace)
