"""Devices with a join token that dial in to become members: the port is open while a token is good."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Never

from edvit_tf.errors import EdvitError
from edvit_tf.fleet.discover import DIALLED, Announced
from edvit_tf.fleet.enrol import enrol
from edvit_tf.fleet.keys import FleetKeys
from edvit_tf.fleet.state import FleetState
from edvit_tf.fleet.tokens import Tokens
from edvit_tf.rpc.address import Address
from edvit_tf.rpc.certificates import utc_now
from edvit_tf.rpc.channel import Server
from edvit_tf.rpc.pairing_channel import Pair, serve_joining

LOOK_SECONDS = 1.0

log = logging.getLogger(__name__)


async def keep_joining_open(address: Address, folder: Path, keys: Callable[[], FleetKeys]) -> Never:
    """Let devices join at the port after that of `address`, while the fleet in `folder` has a good token.

    `keys` are asked for each device.
    """
    tokens = Tokens(folder)
    server: Server | None = None
    said = ""

    async def join(pair: Pair, origin: str) -> None:
        member = await enrol(pair, keys(), tokens.secret, on_proved=tokens.use)
        await asyncio.to_thread(_write_down, folder, Announced(f"{DIALLED}{origin}", member.id, member.name))
        log.info("%s has joined the fleet (id %s)", member.name, member.id[:12])

    try:
        while True:
            try:
                if not expects_joining(folder):
                    if server is not None:
                        await server.stop(1.0)
                    server = None
                elif server is None:
                    server = await serve_joining(join, address)
            except EdvitError as error:
                if error.message != said:
                    said = error.message
                    log.warning("%s", said)
            await asyncio.sleep(LOOK_SECONDS)
    finally:
        if server is not None:
            await server.stop(0)


def expects_joining(folder: Path) -> bool:
    """Whether there is a token with which a device may still join."""
    now = utc_now()
    return any(token.valid(now) for token in Tokens(folder).all())


def _write_down(folder: Path, device: Announced) -> None:
    with FleetState(folder) as state:  # of its own: whoever runs sees that somebody has written
        state.enrol(device)
