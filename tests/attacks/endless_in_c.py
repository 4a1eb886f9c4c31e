"""Strategy: stay inside one C call, where Python looks at no signal.

Surface: time
Expect: time limit
"""

import re

re.match(r"(a+)+$", "a" * 64 + "b")
