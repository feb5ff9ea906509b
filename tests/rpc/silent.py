"""A stranger that opens a thousand connections and says nothing: `python -m tests.rpc.silent PORT`.

Prints how many of them are open half a second later, and after how many seconds none is.
"""

import socket
import sys
import time

HOST = "127.0.0.1"
CONNECTIONS = 1000


def still_open(connections: list[socket.socket]) -> int:
    """How many the other side has not closed."""
    number = 0
    for connection in connections:
        try:
            number += connection.recv(100) != b""
        except BlockingIOError:
            number += 1
        except OSError:
            pass
    return number


def main(port: int) -> None:
    """Open them all and wait for the end of the last."""
    start = time.monotonic()
    connections = []
    for _ in range(CONNECTIONS):
        connection = socket.create_connection((HOST, port))
        connection.setblocking(False)
        connections.append(connection)
    time.sleep(0.5)
    print(still_open(connections), flush=True)  # noqa: T201
    while still_open(connections):
        time.sleep(0.1)
    print(time.monotonic() - start, flush=True)  # noqa: T201


if __name__ == "__main__":
    main(int(sys.argv[1]))
