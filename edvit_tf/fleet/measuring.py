"""An export's candidates, measured on the devices that are to run them. What those serve stays as it is."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from edvit_tf.bundle.manifest import Submodel, Variant
from edvit_tf.bundle.reader import Bundle
from edvit_tf.bundle.tried import Measured
from edvit_tf.errors import DeviceError, EdvitError, LinkError, ProtocolError
from edvit_tf.fleet.deploy import candidates
from edvit_tf.fleet.discover import Announced
from edvit_tf.fleet.hello import HELLO_SECONDS, say_hello
from edvit_tf.fleet.member import Connect
from edvit_tf.fleet.transfer import Parcel, measure
from edvit_tf.rpc.edvit_pb2 import HelloReply, InstallRequest
from edvit_tf.rpc.link import Link
from edvit_tf.rpc.text import clean_text

# Each candidate has so many turns, and its fastest counts: all meet the same noise.
ROUNDS = 3
_SHORT = 12  # digits of an id


@dataclass(frozen=True, slots=True)
class Measurer:
    """A device that can measure; `software` is its version of edvit-tf."""

    device: Announced
    software: str
    runtime: str


async def find_measurers(
    devices: Sequence[Announced], *, connect: Connect
) -> tuple[list[Measurer], dict[str, str]]:
    """Ask devices whether they can measure: those that can, and by name why the others cannot."""

    async def ask(device: Announced) -> Measurer | EdvitError:
        link = connect(device.address, device.id)
        try:
            hello = await say_hello(link, device.id)
            await _check_able(link, hello)
        except EdvitError as error:
            return error
        finally:
            await link.close()
        return Measurer(device, clean_text(hello.software), clean_text(hello.runtime))

    answers = await asyncio.gather(*map(ask, devices))
    able = [answer for answer in answers if isinstance(answer, Measurer)]
    others = {
        device.name or device.id[:_SHORT]: answer.message
        for device, answer in zip(devices, answers, strict=True)
        if isinstance(answer, EdvitError)
    }
    return able, others


async def _check_able(link: Link, hello: HelloReply) -> None:
    """Begin to measure nothing: who knows how refuses that in words of its own."""

    async def nothing() -> AsyncIterator[InstallRequest]:
        return
        yield

    try:
        async with aclosing(link.measure(nothing(), timeout=HELLO_SECONDS)) as replies:
            async for _ in replies:
                pass
    except ProtocolError:
        raise ProtocolError(
            f"it runs edvit-tf {clean_text(hello.software) or 'of an unknown version'}, which cannot "
            "measure: update it there"
        ) from None


async def measure_on(
    devices: Sequence[Announced], bundle: Bundle, submodel: Submodel, *, connect: Connect
) -> dict[str, tuple[Measured, ...]]:
    """Have every device prove and measure a sub-model in each variant; what they said, by format.

    All devices at once; on each one variant after the other, in some rounds.

    Raises:
        LinkError: a device was lost on the way; the sentence says what to do.
        DeviceError: one was busy all the time with being installed to.
    """
    rows = await asyncio.gather(*(_measure_one(device, bundle, submodel, connect) for device in devices))
    return {name: tuple(row[name] for row in rows) for name in submodel.formats}


async def _measure_one(
    device: Announced, bundle: Bundle, submodel: Submodel, connect: Connect
) -> Mapping[str, Measured]:
    link = connect(device.address, device.id)
    try:
        hello = await say_hello(link, device.id)
        return await _rounds(link, hello, bundle, submodel)
    except LinkError as error:
        name = device.name or device.id[:_SHORT]
        raise LinkError(
            f"{name} was lost while it measured ({error.message}): run the same command again when it is "
            f"back, or after `edvit-tf fleet drain {name}` without it; what is finished is kept",
            code="link.lost",
        ) from error
    finally:
        await link.close()


async def _rounds(link: Link, hello: HelloReply, bundle: Bundle, submodel: Submodel) -> dict[str, Measured]:
    name, runtime = clean_text(hello.name), clean_text(hello.runtime)

    def said(microseconds: int | None, reason: str = "") -> Measured:
        ms = None if microseconds is None else microseconds / 1000
        return Measured(hello.id[:_SHORT], name, runtime, ms, reason)

    found = {
        variant.format: said(None, f"{runtime} does not run it rightly") for variant in submodel.variants
    }
    fastest: dict[str, int] = {}
    left = _runnable(submodel, hello)
    for _ in range(ROUNDS):
        for variant in list(left):
            try:
                taken = await measure(link, Parcel(bundle, submodel.id, variant, name))
            except DeviceError as error:
                if error.code != "device.refused":
                    raise
                left.remove(variant)
                if variant.format not in fastest:
                    found[variant.format] = said(None, error.message)
            else:
                fastest[variant.format] = min(taken, fastest.get(variant.format, taken))
                found[variant.format] = said(fastest[variant.format])
    return found


def _runnable(submodel: Submodel, hello: HelloReply) -> list[Variant]:
    try:
        return candidates(submodel, hello)
    except DeviceError:
        return []
