"""Strategy: send a datagram, which needs no connection.

Surface: network
Expect: forbidden operation
"""

import socket

socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", 53))
print("ESCAPED")
