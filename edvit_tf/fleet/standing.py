"""Where every device of a fleet stands: from the aggregator that runs, or by asking each of them now."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from edvit_tf.bundle.reader import Bundle
from edvit_tf.errors import EdvitError, UsageError
from edvit_tf.fleet.deploy import Deployment
from edvit_tf.fleet.discover import Announced, discover
from edvit_tf.fleet.hello import DeviceStatus, State, say_hello, status_of
from edvit_tf.fleet.hold import running
from edvit_tf.fleet.liveness import state_after
from edvit_tf.fleet.member import Connect
from edvit_tf.fleet.placing import UNKNOWN, host_of, parts_of
from edvit_tf.fleet.state import FleetState, Known
from edvit_tf.plan.failover import DEFAULT_POLICY, Option, Policy, options
from edvit_tf.rpc.edvit_pb2 import HelloReply
from edvit_tf.rpc.text import clean_text

# One that has another address since it was started again announces it.
BROWSE_SECONDS = 1.0
_ANSWERS = (State.UP.value, State.SLOW.value)


async def refresh(state: FleetState, connect: Connect) -> None:
    """Ask every device now and write down where it stands, unless an aggregator runs, which does that."""
    if running(state.folder) is not None:
        return
    known = {device.id: device for device in state.devices()}
    asked = await _ask(list(known.values()), connect)
    silent = [device for device in asked if not answers(device)]
    if silent:
        # Anybody may have announced any of these: only one that has proved itself counts.
        places = [place for place in await discover(BROWSE_SECONDS) if not place.pair]
        elsewhere = [
            replace(device, address=place.address)
            for device in silent
            for place in places
            if place.id == device.id and place.address != device.address
        ]
        asked += [device for device in await _ask(elsewhere, connect) if answers(device)]
    for device in {device.id: device for device in asked}.values():
        before = known[device.id]
        same = before.state == device.state
        await asyncio.to_thread(state.seen, replace(device, since=before.since) if same else device)


async def _ask(devices: Sequence[Known], connect: Connect) -> list[Known]:
    async def one(device: Known) -> Known:
        link = connect(device.address, device.id)
        try:
            hello = await say_hello(link, device.id)
        except EdvitError as error:
            state = state_after(error).value
            return replace(device, state=state, reason=error.message, since=time.time())
        finally:
            await link.close()
        return replace(
            device,
            name=clean_text(hello.name) or device.name,
            state=State.UP.value,
            reason="",
            since=time.time(),
            hello=hello.SerializeToString(),
        )

    return list(await asyncio.gather(*map(one, devices)))


def answers(device: Known) -> bool:
    """Whether a device answered when somebody last looked."""
    return device.state in _ANSWERS


def rows_of(devices: Sequence[Known]) -> list[DeviceStatus]:
    """The rows of `fleet status`."""
    return [
        replace(
            status_of(
                Announced(device.address, device.id, device.name),
                State(device.state or State.CONNECTING.value),
                device.reason or ("it is being drained" if device.drained else ""),
                HelloReply.FromString(device.hello) if device.hello else None,
                device.since,
            ),
            codec=device.codec,
            sent_bytes=device.sent_bytes,
        )
        for device in devices
    ]


def named(devices: Sequence[Known], wanted: str) -> Known:
    """The device that is called so, or whose id begins so.

    Raises:
        UsageError: `fleet.device`: there is none, or there are several.
    """
    found = [
        device for device in devices if wanted and (device.name == wanted or device.id.startswith(wanted))
    ]
    if len(found) == 1:
        return found[0]
    rows = ", ".join(f"{device.name} {device.id[:12]}" for device in found or devices) or "none"
    what = "is the name of several devices: name one by its id" if found else "is no device of this fleet"
    raise UsageError(f"{wanted!r} {what} ({rows})", code="fleet.device")


@dataclass(frozen=True, slots=True)
class Placing:
    """Where a sub-model is and where it could be; devices by their ids."""

    submodel: str
    home: str
    holder: str
    options: tuple[Option, ...]


def placings(
    bundle: Bundle, deployment: Deployment, devices: Sequence[Known], policy: Policy = DEFAULT_POLICY
) -> list[Placing]:
    """Which placements are possible now, and why the others are not."""
    hellos = _hellos(devices)
    parts = parts_of(bundle, deployment, hellos, {})
    hosts = [
        host_of(
            hellos.get(device.id) or HelloReply(id=device.id, name=device.name),
            trouble=""
            if device.state in _ANSWERS
            else f"it is {device.state}: {device.reason}"
            if device.state
            else UNKNOWN,
            away=0.0,
            steady=0.0,
            falls=0,
            drained=device.drained,
        )
        for device in devices
    ]
    return [
        Placing(part.id, part.home, part.holder, tuple(options(part, parts, hosts, policy))) for part in parts
    ]


def _hellos(devices: Sequence[Known]) -> Mapping[str, HelloReply]:
    return {device.id: HelloReply.FromString(device.hello) for device in devices if device.hello}
