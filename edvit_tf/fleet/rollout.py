"""A new bundle on a fleet that answers: a few devices at a time, each examined, and all or none in the end.

The old bundle answers until every device holds the new one. Then the aggregator changes over at once, and
each device lets the old one go. A device that has no memory for both lets the old one rest while the new one
is on trial: its sub-models are out, and never more of them than the fusion bears.
"""

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from edvit_tf.bundle.manifest import Manifest
from edvit_tf.bundle.reader import Bundle
from edvit_tf.errors import DeviceError, EdvitError, LinkError
from edvit_tf.fleet.hello import say_hello
from edvit_tf.fleet.transfer import settle, settle_for
from edvit_tf.rpc.edvit_pb2 import HelloReply
from edvit_tf.rpc.link import Link
from edvit_tf.rpc.text import clean_text

# Of the validation pictures, when sub-models are out: a fraction.
TOLERATED_LOSS = 0.05
# Half or more of the devices lost: the deploy waits so long for them, and looks again so often.
PATIENCE_SECONDS = 60.0
LOOK_SECONDS = 1.0

OnSwitch = Callable[[], Awaitable[None]]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Party:
    """A device that takes part, with the sub-models it is to hold and what it said before.

    `before` is the SHA-256 of the manifest that it had settled for (empty: none), and `tight` says that it
    has no memory for both bundles.
    """

    link: Link
    hello: HelloReply
    submodels: tuple[str, ...]
    before: bytes
    tight: bool

    @property
    def name(self) -> str:
        """What people call it."""
        return clean_text(self.hello.name) or self.link.address


Stage = Callable[[Party], Awaitable[None]]


def bearable(manifest: Manifest, *, tolerated: float = TOLERATED_LOSS) -> int:
    """How many sub-models may be out at once.

    Export measures the fused accuracy without each sub-model. The number is the largest for which the worst
    of these losses together stay within `tolerated`, and always fewer than half of the sub-models. That
    losses add up is an estimate: only single ones are measured.
    """
    measured = manifest.accuracies
    losses = sorted(
        (max(0.0, measured.fused - measured.missing.get(s.id, 0.0)) for s in manifest.submodels), reverse=True
    )
    most = (len(losses) - 1) // 2
    return next((count for count in range(most, 0, -1) if sum(losses[:count]) <= tolerated), 0)


def steps(parties: Sequence[Party], most: int) -> list[list[Party]]:
    """Put the parties in steps of at most `most` sub-models, but at least one device; roomy ones first."""
    made: list[list[Party]] = []
    for party in sorted(parties, key=lambda party: (party.tight, party.name, party.hello.id)):
        last = made[-1] if made else []
        taken = sum(len(other.submodels) for other in last)
        if last and last[0].tight == party.tight and taken + len(party.submodels) <= most:
            last.append(party)
        else:
            made.append([party])
    return made


def check_bearable(parties: Sequence[Party], most: int) -> None:
    """Hold the devices without memory for both bundles against what the fusion bears.

    Raises:
        DeviceError: too many sub-models would be out (`deploy.outage`).
    """
    out = sum(len(party.submodels) for party in parties if party.tight)
    if out > most:
        names = ", ".join(party.name for party in parties if party.tight)
        raise DeviceError(
            f"{names} have no memory for the old and the new version together, so {out} sub-models would be "
            f"out while the fusion bears {most}: raise --memory-mb there, or accept it with --outage",
            code="deploy.outage",
        )


async def roll(
    parties: Sequence[Party],
    bundle: Bundle,
    stage: Stage,
    *,
    most: int,
    on_switch: OnSwitch | None = None,
    patience: float = PATIENCE_SECONDS,
) -> None:
    """Bring a bundle to all parties, `most` sub-models at a time, or to none.

    `stage` installs on one device and examines it. When all have it `on_switch` is called, and then each
    device settles. One that cannot be reached at that moment settles when it comes back.

    Raises:
        DeviceError: a device refused or did not pass; every device is back at the old bundle.
        LinkError: a device was lost for good, or half of them for more than `patience` seconds; likewise.
    """
    touched: list[Party] = []
    try:
        for step in steps(parties, most):
            await _enough(parties, patience)
            touched += step
            await _all(stage(party) for party in step)
        if on_switch is not None:
            await on_switch()
    except BaseException:
        await asyncio.shield(_roll_back(touched))
        raise
    settling = (settle(party.link, bundle, device=party.name) for party in parties)
    results = await asyncio.gather(*settling, return_exceptions=True)
    for party, result in zip(parties, results, strict=True):
        if isinstance(result, EdvitError):
            log.warning("%s settles when it is back: %s", party.name, result.message)
        elif result is not None:
            raise result


async def _all(works: Iterable[Awaitable[None]]) -> None:
    results = await asyncio.gather(*works, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result


async def _roll_back(parties: Sequence[Party]) -> None:
    async def one(party: Party) -> None:
        try:
            await settle_for(party.link, party.before, device=party.name)
        except EdvitError as error:
            log.warning("%s could not go back: %s", party.name, error.message)

    await asyncio.gather(*(one(party) for party in parties if party.before))


async def _enough(parties: Sequence[Party], patience: float) -> None:
    """Return when more than half of the devices answer."""
    loop = asyncio.get_running_loop()
    end = loop.time() + patience
    while True:
        lost = [name for name in await asyncio.gather(*map(_lost, parties)) if name]
        if 2 * len(lost) < len(parties) or not lost:
            return
        if loop.time() >= end:
            raise LinkError(
                f"{len(lost)} of {len(parties)} devices cannot be reached ({', '.join(lost)}): the deploy "
                "has been taken back; bring them up and run it again",
                code="deploy.lost",
            )
        log.warning("waiting: %d of %d devices cannot be reached", len(lost), len(parties))
        await asyncio.sleep(LOOK_SECONDS)


async def _lost(party: Party) -> str:
    try:
        await say_hello(party.link, party.hello.id)
    except LinkError:
        return party.name
    return ""


def digest_of(bundle: Bundle) -> bytes:
    """The SHA-256 of a bundle's manifest file."""
    return hashlib.sha256(bundle.manifest_bytes).digest()
