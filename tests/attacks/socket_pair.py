"""Strategy: make a pair, which other attacks pass descriptors through.

Surface: network
Expect: forbidden operation
"""

import socket

socket.socketpair()
print("ESCAPED")
