"""Strategy: read what any user of the host may read.

Surface: files
Expect: accepted
"""

for path in (
    "/etc/passwd",
    "/etc/hostname",
    "/proc/version",
    "/proc/self/maps",
    "/proc/1/cmdline",
    "/sys/kernel/notes",
):
    try:
        print("ESCAPED", open(path, "rb").read(16))
    except OSError:
        pass
