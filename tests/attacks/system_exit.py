"""Strategy: end with success before the tests.

Surface: exceptions
Expect: runtime error
"""

raise SystemExit(0)
