"""Strategy: read address 0.

Surface: signals
Expect: runtime error
"""

import ctypes

ctypes.string_at(0)
