"""How a verb reaches the devices that dial in: through the aggregator that runs, or at a port of its own."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edvit_tf.fleet import Announced
    from edvit_tf.fleet.keys import FleetKeys
    from edvit_tf.fleet.member import Connect


@dataclass(frozen=True, slots=True)
class Reach:
    """How to make a link, and which devices have dialled in at the moment."""

    connect: "Connect"
    dialled: "Callable[[], list[Announced]]"


@asynccontextmanager
async def reaching(folder: Path, keys: "FleetKeys", listen: str) -> AsyncIterator[Reach]:
    """Reach devices through the aggregator that runs, or, when none does, those that dial in at `listen`."""
    import asyncio

    from edvit_tf.fleet import Announced
    from edvit_tf.fleet.connect import with_keys
    from edvit_tf.fleet.hold import running
    from edvit_tf.fleet.inward import Inward
    from edvit_tf.fleet.joining import keep_joining_open
    from edvit_tf.fleet.state import FleetState
    from edvit_tf.rpc.address import listen_address
    from edvit_tf.rpc.inward import serve_inward

    served = running(folder)
    if served is not None or not listen:
        relay = served.grpc if served else ""
        yield Reach(with_keys(keys, relay=relay), partial(dialled_at_running, folder))
        return
    address = listen_address(listen, "--listen")
    inward = Inward()
    with FleetState(folder) as state:

        def dialled() -> list[Announced]:
            inward.admit([device.id for device in state.devices()])  # one may just have joined
            return inward.present()

        dialled()
        server = await serve_inward(inward.welcome, address, lambda: keys.credentials)
        bound = replace(address, port=server.port)
        joining = asyncio.create_task(keep_joining_open(bound, folder, lambda: keys))
        try:
            yield Reach(with_keys(keys, inward=inward), dialled)
        finally:
            joining.cancel()
            await asyncio.gather(joining, return_exceptions=True)
            await server.stop(0)


def dialled_at_running(folder: Path) -> "list[Announced]":
    """The devices that have dialled in at the aggregator that runs, as it has written them down."""
    from edvit_tf.fleet import Announced
    from edvit_tf.fleet.discover import DIALLED
    from edvit_tf.fleet.hold import running
    from edvit_tf.fleet.standing import answers
    from edvit_tf.fleet.state import FleetState

    if running(folder) is None:
        return []
    with FleetState(folder) as state:
        return [
            Announced(device.address, device.id, device.name)
            for device in state.devices()
            if device.address.startswith(DIALLED) and answers(device)
        ]
