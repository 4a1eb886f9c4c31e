"""Strategy: change builtins that the judge's half uses.

Surface: result channel
Expect: accepted | runtime error | wrong answer: unreadable | wrong answer: type
"""

import builtins

builtins.isinstance = lambda *_: True
builtins.type = lambda *_: int
