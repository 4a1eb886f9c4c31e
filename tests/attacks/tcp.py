"""Strategy: open a connection.

Surface: network
Expect: forbidden operation
"""

import socket

socket.create_connection(("127.0.0.1", 80), timeout=1)
print("ESCAPED")
