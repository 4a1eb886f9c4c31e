"""Strategy: talk to a service of the host through an abstract address.

Surface: network
Expect: forbidden operation
"""

import socket

socket.socket(socket.AF_UNIX).connect("\0service")
print("ESCAPED")
