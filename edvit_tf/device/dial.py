"""A device that dials out: it opens a connection to its aggregator, is asked over it, and opens the next."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from random import Random
from typing import Never

from edvit_tf.errors import EdvitError, TrustError
from edvit_tf.rpc.backoff import backoff
from edvit_tf.rpc.inward import dial
from edvit_tf.rpc.pairing_channel import Pair, join_at
from edvit_tf.rpc.tls import Credentials
from edvit_tf.rpc.tunnel import Answer

FIRST_SECONDS = 0.2
LONGEST_SECONDS = 2.0
# An aggregator that does not take the device is not asked every few seconds.
LONGEST_REFUSED_SECONDS = 30.0
# After so long a connection was a good one, and the next is tried at once.
STABLE_SECONDS = 5.0

log = logging.getLogger(__name__)


async def keep_joining(
    address: str, pair: Pair, over: asyncio.Event, *, random: Random | None = None
) -> None:
    """Try to join, by the device's side `pair` of the conversation, at the aggregator that members dial.

    Returns after the attempt in which `over` was set: the aggregator has then heard that it worked.
    """
    jitter = random or Random()  # noqa: S311 (it is no secret)
    failures = 0
    said = ""
    while not over.is_set():
        try:
            await join_at(address, pair)
        except EdvitError as error:
            if error.message != said:
                said = error.message
                log.warning("%s", said)
        failures += 1
        pause = backoff(failures, jitter, first=FIRST_SECONDS, longest=LONGEST_SECONDS)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await over.wait()


async def keep_dialled(
    address: str, credentials: Callable[[], Credentials], answer: Answer, *, random: Random | None = None
) -> Never:
    """Answer over connections to the aggregator at `address` ("host:port"), one after the other, for ever.

    `credentials` are asked for each connection: a certificate that was renewed is shown from the next one on.
    """
    jitter = random or Random()  # noqa: S311 (it is no secret)
    failures = 0
    said = ""

    def on_connected() -> None:
        nonlocal said
        said = ""
        log.info("dialled in at %s", address)

    while True:
        began = time.monotonic()
        refused = False
        try:
            await dial(address, credentials(), answer, on_connected)
            reason = f"the aggregator at {address} hung up"
        except EdvitError as error:
            reason, refused = error.message, isinstance(error, TrustError)
        if reason != said:
            log.warning("%s", reason)
            said = reason
        failures = 1 if time.monotonic() - began >= STABLE_SECONDS else failures + 1
        longest = LONGEST_REFUSED_SECONDS if refused else LONGEST_SECONDS
        await asyncio.sleep(backoff(failures, jitter, first=FIRST_SECONDS, longest=longest))
