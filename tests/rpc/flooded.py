"""A device with keys under a flood of connections that say nothing, in a process that may die of it.

`python -m tests.rpc.flooded SECONDS` prints how many connections there were.
"""

import asyncio
import contextlib
import socket
import sys
import time

from edvit_tf.rpc.channel import serve_grpc
from tests.rpc.fleet import TestFleet
from tests.rpc.handlers import Echo

HOST = "127.0.0.1"
THREADS = 4


def flood(port: int, until: float) -> int:
    """Open and close connections, twenty at a time, and count them."""
    number = 0
    while time.monotonic() < until:
        with contextlib.ExitStack() as exits, contextlib.suppress(OSError):
            for _ in range(20):
                exits.enter_context(socket.create_connection((HOST, port), timeout=1))
                number += 1
    return number


async def main(seconds: float) -> int:
    """Serve while the threads connect; how often they did."""
    _, credentials = TestFleet().device()
    server = await serve_grpc(Echo(), HOST, 0, lambda: credentials)
    until = time.monotonic() + seconds
    numbers = await asyncio.gather(*(asyncio.to_thread(flood, server.port, until) for _ in range(THREADS)))
    await server.stop(0)
    return sum(numbers)


if __name__ == "__main__":
    print(asyncio.run(main(float(sys.argv[1]))))  # noqa: T201
