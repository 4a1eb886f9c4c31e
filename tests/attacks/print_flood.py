"""Strategy: print for ever.

Surface: output
Expect: output limit | time limit
"""

while True:
    print("x" * 100_000)
