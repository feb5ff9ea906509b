"""Saying hello to devices once, for `fleet discover`, `fleet status` and `fleet rollback`."""

import asyncio
import shlex
from collections.abc import Sequence

from edvit_tf.errors import EdvitError
from edvit_tf.fleet.clones import refuse_clones
from edvit_tf.fleet.discover import Announced
from edvit_tf.fleet.hello import HELLO_SECONDS, DeviceStatus, State, say_hello, status_of
from edvit_tf.fleet.liveness import state_after
from edvit_tf.fleet.member import Connect
from edvit_tf.rpc.edvit_pb2 import HelloReply


def listed(devices: Sequence[Announced]) -> list[DeviceStatus]:
    """A row for each device by what it announces, which anybody may have written: nobody is asked."""
    return [
        _waiting(device)
        if device.pair
        else status_of(device, State.ANNOUNCED, "run `edvit-tf fleet init` to have a fleet", None)
        for device in devices
    ]


async def survey(
    devices: Sequence[Announced], *, connect: Connect, timeout: float = HELLO_SECONDS
) -> list[DeviceStatus]:
    """Say hello to all at once; return a row for each in the same order, with a reason where it failed."""

    async def ask(device: Announced) -> HelloReply | EdvitError:
        link = connect(device.address, device.id)
        try:
            return await say_hello(link, device.id, timeout=timeout)
        except EdvitError as error:
            return error
        finally:
            await link.close()

    def row(device: Announced, answer: HelloReply | EdvitError) -> DeviceStatus:
        if isinstance(answer, EdvitError):
            return status_of(device, state_after(answer), answer.message, None)
        return status_of(device, State.UP, "", answer)

    members = [device for device in devices if not device.pair]
    answers = refuse_clones(members, await asyncio.gather(*map(ask, members)))
    rows = dict(zip(members, map(row, members, answers), strict=True))
    return [rows.get(device) or _waiting(device) for device in devices]


def _waiting(device: Announced) -> DeviceStatus:
    which = device.name or device.id[:12]
    advice = f"run `edvit-tf fleet adopt {shlex.quote(which)}` with its code"
    return status_of(device, State.WAITING, advice, None)


async def newest_version(devices: Sequence[Announced], bundle: str, *, connect: Connect) -> int:
    """The highest version of a bundle that one of the devices holds, settled or on trial; 0 for none.

    A deploy that was taken back leaves the new version on a device that had none before.
    """

    async def one(device: Announced) -> int:
        link = connect(device.address, device.id)
        try:
            hello = await say_hello(link, device.id)
        except EdvitError:
            return 0
        finally:
            await link.close()
        return max((held.version for held in hello.generations if held.bundle == bundle), default=0)

    return max(await asyncio.gather(*map(one, devices)), default=0)
