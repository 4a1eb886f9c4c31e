"""Strategy: leave a thread behind that never ends.

Surface: processes
Expect: accepted
"""

import threading


def spin():
    while True:
        pass


threading.Thread(target=spin).start()
