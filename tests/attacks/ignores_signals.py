"""Strategy: ignore every signal and spin.

Surface: signals
Expect: time limit
"""

import signal

for number in signal.valid_signals():
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
while True:
    pass
