"""Strategy: source that takes the compiler minutes.

Surface: compiling
Expect: compile error | time limit | memory limit | runtime error
"""

X = 1
Y = [[[[[[[[[0] * 99] * 99] * 99] * 99] * 99] * 99] * 99] * 99]
Z = eval("-" * 100_000 + "1")
