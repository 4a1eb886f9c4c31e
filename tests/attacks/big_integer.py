"""Strategy: arithmetic that fills memory in one C call, where no signal is looked at.

Surface: memory
Expect: time limit | memory limit
"""

print(len(str(9 ** (9**9))))
