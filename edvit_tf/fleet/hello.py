"""The handshake: the first thing an aggregator asks, and the only thing it believes about a device."""

import math
import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import Enum

from edvit_tf import __version__
from edvit_tf.errors import DeviceError
from edvit_tf.fleet.discover import DIALLED, Announced
from edvit_tf.rpc.edvit_pb2 import HelloReply, HelloRequest
from edvit_tf.rpc.link import PROTOCOL, Link, check_protocol
from edvit_tf.rpc.text import clean_text

HELLO_SECONDS = 1.0
MEGABYTE = 1_000_000
_ID = re.compile(r"[0-9a-f]{64}")


class State(Enum):
    """Where a device stands."""

    CONNECTING = "connecting"  # not reached yet, or taking its sub-models
    WAITING = "waiting"  # of no fleet yet, to be adopted
    ANNOUNCED = "announced"  # nobody has asked it: without keys one cannot
    UP = "up"
    SLOW = "slow"  # answers, but late
    SUSPECT = "suspect"  # has just not answered
    DOWN = "down"  # cannot be reached
    REFUSED = "refused"  # answers, and refuses or is refused


@dataclass(frozen=True, slots=True)
class DeviceStatus:
    """One row of `fleet discover` and `fleet status`; 0 and empty where nothing is known.

    `memory_mb` is what it gives to sub-models, `kind` its machine.
    `since` is when the device came to its state, in UTC as ISO 8601. `codec` is the one in which it was last
    sent a picture, `sent_bytes` what it was sent since the aggregator started. `link` is "out" for a device
    that is called at its address, and "in" for one that has dialled in from there.
    """

    id: str
    name: str
    address: str
    state: str
    reason: str
    protocol: int
    software: str
    runtime: str
    accelerator: str
    accelerator_reason: str
    bundle_version: int
    memory_mb: float
    submodels: tuple[str, ...]
    kind: str = ""
    cores: int = 0
    since: str = ""
    link: str = "out"
    codec: str = ""
    sent_bytes: int = 0

    def to_json(self) -> dict[str, object]:
        """The row as JSON."""
        return {**asdict(self), "submodels": list(self.submodels)}


def status_of(
    device: Announced, state: State, reason: str, hello: HelloReply | None, since: float = 0.0
) -> DeviceStatus:
    """Put together what was announced and what the device said itself (`hello`).

    `since` is in seconds of the wall clock, 0 when unknown.
    """
    said = hello or HelloReply(
        id=device.id,
        protocol=device.protocol,
        software=device.software,
        runtime=device.runtime,
        memory_bytes=device.memory_bytes,
        kind=device.kind,
        cores=device.cores,
    )
    return DeviceStatus(
        id=said.id,
        name=clean_text(said.name) or device.name,
        address=device.address,
        state=state.value,
        reason=reason,
        protocol=said.protocol,
        software=clean_text(said.software),
        runtime=clean_text(said.runtime),
        accelerator=clean_text(said.accelerator),
        accelerator_reason=clean_text(said.accelerator_reason),
        bundle_version=said.bundle_version,
        memory_mb=said.memory_bytes / MEGABYTE,
        submodels=tuple(holding.submodel for holding in said.holdings if holding.serving),
        kind=clean_text(said.kind),
        cores=said.cores,
        since=datetime.fromtimestamp(since, UTC).isoformat(timespec="seconds") if since else "",
        link="in" if device.address.startswith(DIALLED) else "out",
    )


async def say_hello(link: Link, expected_id: str, *, timeout: float = HELLO_SECONDS) -> HelloReply:
    """Shake hands; `expected_id` empty means that any device is welcome.

    Raises:
        ProtocolError: it speaks a protocol this version does not.
        DeviceError: it is another device than was announced, or says impossible things.
        LinkError: it cannot be reached.
    """
    reply = await link.hello(HelloRequest(protocol=PROTOCOL, software=__version__), timeout=timeout)
    check_protocol(reply.protocol, f"the device at {link.address}")
    if expected_id and reply.id != expected_id:
        raise DeviceError(
            f"the device at {link.address} says it is {reply.id[:12]!r}, and {expected_id[:12]} was "
            "announced there: something else listens at its address",
            code="device.identity",
        )
    energy = reply.energy_joules, reply.joules_per_mac
    if not _ID.fullmatch(reply.id) or not all(math.isfinite(value) and value >= 0 for value in energy):
        raise DeviceError(f"the device at {link.address} answers nonsense in its hello", code="device.hello")
    return reply
