"""Strategy: leave a thread behind that never ends.

Surface: processes
Expect: accepted
Seconds: 20

The honest work waits for the interpreter's lock at each call, and a slow processor takes seconds.
"""

import threading


def spin():
    while True:
        pass


threading.Thread(target=spin).start()
