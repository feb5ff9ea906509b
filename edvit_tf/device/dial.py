"""A device that dials out: it opens a connection to its aggregator, is asked over it, and opens the next."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import Never

from edvit_tf.device.find import find_aggregators
from edvit_tf.errors import EdvitError, LinkError, TrustError
from edvit_tf.rpc.address import dialled_address
from edvit_tf.rpc.backoff import backoff
from edvit_tf.rpc.inward import dial
from edvit_tf.rpc.pairing_channel import Pair, join_at
from edvit_tf.rpc.tls import Credentials
from edvit_tf.rpc.tunnel import Answer

AUTO = "auto"
FIRST_SECONDS = 0.2
LONGEST_SECONDS = 2.0
# An aggregator that does not take the device is not asked every few seconds.
LONGEST_REFUSED_SECONDS = 30.0
# After so long a connection was a good one, and the next is tried at once.
STABLE_SECONDS = 5.0

# Addresses ("host:port") to try, one after the other.
Places = Callable[[], Awaitable[Sequence[str]]]

log = logging.getLogger(__name__)


def check_dial(dial_option: str) -> None:
    """Raise UsageError for what is neither "host:port" nor `AUTO` nor nothing."""
    if dial_option not in ("", AUTO):
        dialled_address(dial_option, "--dial")


def places(dial_option: str, fleet: bytes) -> Places:
    """Where to dial: at one address, or (`AUTO`) where an aggregator of the fleet is announced at the moment.

    `fleet` is the SHA-256 (32 bytes) of the certificate of the fleet's authority.
    """

    async def announced() -> Sequence[str]:
        found = await find_aggregators(fleet)
        if not found:
            raise LinkError(
                "no aggregator of this fleet is announced here: name one with --dial host:port, or run "
                "`edvit-tf serve --listen`"
            )
        return found

    async def named() -> Sequence[str]:
        return (dial_option,)

    return announced if dial_option == AUTO else named


class _Saying:
    """Logs a reason when it is another one than before."""

    def __init__(self) -> None:
        self._said = ""

    def say(self, reason: str) -> None:
        if reason != self._said:
            self._said = reason
            log.warning("%s", reason)

    def connected(self, address: str) -> None:
        self._said = ""
        log.info("dialled in at %s", address)


async def keep_joining(
    where: Places, pair: Pair, over: asyncio.Event, *, random: Random | None = None
) -> None:
    """Try to join, by the device's side `pair` of the conversation, at the aggregators that members dial.

    Returns after the attempt in which `over` was set: the aggregator has then heard that it worked.
    """
    jitter = random or Random()  # noqa: S311 (it is no secret)
    saying = _Saying()
    failures = 0
    while not over.is_set():
        for address in await _found(where, saying):
            try:
                await join_at(address, pair)
            except EdvitError as error:
                saying.say(error.message)
            if over.is_set():
                return
        failures += 1
        pause = backoff(failures, jitter, first=FIRST_SECONDS, longest=LONGEST_SECONDS)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await over.wait()


async def keep_dialled(
    where: Places, credentials: Callable[[], Credentials], answer: Answer, *, random: Random | None = None
) -> Never:
    """Answer over connections to an aggregator, one after the other, for ever.

    `credentials` are asked for each connection: a certificate that was renewed is shown from the next one on.
    """
    jitter = random or Random()  # noqa: S311 (it is no secret)
    saying = _Saying()
    failures = 0
    while True:
        began = time.monotonic()
        refused = await _dial_each(where, credentials, answer, saying)
        failures = 1 if time.monotonic() - began >= STABLE_SECONDS else failures + 1
        longest = LONGEST_REFUSED_SECONDS if refused else LONGEST_SECONDS
        await asyncio.sleep(backoff(failures, jitter, first=FIRST_SECONDS, longest=longest))


async def _dial_each(
    where: Places, credentials: Callable[[], Credentials], answer: Answer, saying: _Saying
) -> bool:
    """Dial one place after the other; whether all of them refused the device, or were not its aggregator."""
    refused = []
    for address in await _found(where, saying):

        def on_connected(address: str = address) -> None:
            saying.connected(address)

        try:
            await dial(address, credentials(), answer, on_connected)
            saying.say(f"the aggregator at {address} hung up")
            refused.append(False)
        except EdvitError as error:
            saying.say(error.message)
            refused.append(isinstance(error, TrustError))
    return bool(refused) and all(refused)


async def _found(where: Places, saying: _Saying) -> Sequence[str]:
    try:
        return await where()
    except LinkError as error:
        saying.say(error.message)
        return ()
