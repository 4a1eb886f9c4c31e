"""Strategy: use up the file system's entries.

Surface: files
Expect: accepted
"""

try:
    for index in range(1_000_000):
        open(f"f{index}", "w").close()
    print("ESCAPED")
except OSError:
    pass
