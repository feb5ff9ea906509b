"""What a service tells systemd: that it is ready, and that it still lives. Elsewhere nobody listens."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator


def notify(message: str) -> None:
    """Send a message (`sd_notify(3)`) to the service manager that started this process, if one did."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    where = "\0" + address[1:] if address.startswith("@") else address
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.connect(where)
        sender.sendall(message.encode())


@contextlib.asynccontextmanager
async def living() -> AsyncIterator[None]:
    """Say that the process lives, as often as was asked for, while the block lasts and the loop turns."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    task = asyncio.create_task(_repeat(int(microseconds) / 2e6)) if microseconds.isdecimal() else None
    try:
        yield
    finally:
        if task is not None:
            task.cancel()


async def _repeat(seconds: float) -> None:
    while True:
        notify("WATCHDOG=1")
        await asyncio.sleep(seconds)
