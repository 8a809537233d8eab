"""The container's health: exit 0 if this service is ready to serve. Run often, so it imports next to nothing."""

import os
import socket
import sys

port = int(os.environ.get("BIND", "0.0.0.0:8000").rpartition(":")[2])
try:
    with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
        connection.sendall(b"GET /health/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        status = connection.recv(64).split(b"\r\n")[0]
except OSError as error:
    sys.exit(str(error))
sys.exit(0 if b" 200" in status else status.decode(errors="replace"))
