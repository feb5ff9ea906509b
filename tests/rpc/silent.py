"""A stranger that opens a thousand connections and says nothing: `python -m tests.rpc.silent PORT`.

Prints how many of them are open half a second later, and after how many seconds none is.
"""

import asyncio
import contextlib
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


async def slow_loris(port: int, count: int, *, longest: float) -> None:
    """Send the beginning of a handshake on so many connections, byte by byte, until all are closed.

    Raises:
        AssertionError: some are open after `longest` seconds.
    """
    connections = [socket.create_connection((HOST, port)) for _ in range(count)]
    for connection in connections:
        connection.setblocking(False)
    start = time.monotonic()
    hello_bytes = iter(b"\x16\x03\x01\x02\x00" + bytes(512))
    while still_open(connections):
        assert time.monotonic() - start < longest
        drop = bytes([next(hello_bytes)])
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.send(drop)
        await asyncio.sleep(0.5)
    for connection in connections:
        connection.close()


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
