"""Strategy: source text that no encoding holds.

Surface: compiling
Expect: accepted | compile error
"""

TEXT = "\ud800"
print(repr(TEXT))
