"""One sub-model to one device, over a link that may break on the way, and which bundle the device keeps."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from edvit_tf.bundle.manifest import Variant
from edvit_tf.bundle.reader import Bundle
from edvit_tf.errors import DeadlineError, DeviceError, LinkError
from edvit_tf.rpc.edvit_pb2 import InstallHeader, InstallReply, InstallRequest, Release, Settle
from edvit_tf.rpc.link import CHUNK_BYTES, Link
from edvit_tf.rpc.text import clean_text

# The test vector of a large model takes its time on a slow board, and so do its bytes on a slow network.
VERIFY_SECONDS = 150.0
SLOWEST_BYTES_A_SECOND = 500_000
# A device says every second that it is alive; one that says nothing for so long has lost the connection.
SILENCE_SECONDS = 10.0
# Attempts in a row that brought no byte further; the first ones come quickly.
ATTEMPTS = 6
FIRST_PAUSE_SECONDS = 0.25

_STEPS = {
    InstallReply.RECEIVING: "sending",
    InstallReply.VERIFYING: "verifying",
    InstallReply.SERVING: "serving",
}
# The device keeps what came, or has thrown away what was wrong: the same bytes may pass now.
_AGAIN = ("device.interrupted", "device.busy", "device.hash")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one sub-model is: `step` is "sending", "verifying" or "serving"; the sizes are bytes."""

    submodel: str
    device: str
    step: str
    sent: int
    total: int


OnProgress = Callable[[Progress], None]


class Send(Protocol):
    """`install` or `measure` of a link."""

    def __call__(
        self, requests: AsyncIterable[InstallRequest], *, timeout: float
    ) -> AsyncGenerator[InstallReply, None]:
        """Send one sub-model and yield the device's progress."""
        ...


@dataclass(frozen=True, slots=True)
class Parcel:
    """What one installation sends, and to whom.

    With `replaces` the device may let its settled bundle rest where it has no memory for both.
    """

    bundle: Bundle
    submodel: str
    variant: Variant
    device: str = ""
    replaces: bool = False

    @property
    def total(self) -> int:
        """Bytes of the flatbuffer and the test vector."""
        return sum(self.bundle.file(name).stat().st_size for name in self._names)

    @property
    def _names(self) -> tuple[str, str]:
        return self.variant.file, self.variant.test_vector

    def header(self) -> InstallHeader:
        """What is announced to the device."""
        return InstallHeader(
            manifest=self.bundle.manifest_bytes,
            submodel=self.submodel,
            variant=self.variant.file,
            resumes=True,
            replaces=self.replaces,
            signature=self.bundle.signature,
            rollback=self.bundle.rollback,
        )

    async def chunks(self, start: int) -> AsyncGenerator[bytes, None]:
        """The bytes of the flatbuffer and then of the test vector, without the first `start`."""
        for name in self._names:
            path = self.bundle.file(name)
            size = path.stat().st_size
            with path.open("rb") as file:
                file.seek(min(start, size))
                start = max(0, start - size)
                while chunk := file.read(CHUNK_BYTES):
                    yield chunk


async def install(link: Link, parcel: Parcel, *, on_progress: OnProgress | None = None) -> int:
    """Send one sub-model and wait until the device has proved it on its test vector.

    After a break it goes on with the byte that the device misses, until some attempts in a row bring nothing.

    Returns:
        The median microseconds of one picture, as measured on the device.

    Raises:
        DeviceError: the device refused it; what it served before it serves still.
        LinkError: the connection is broken and stays so.
    """
    return await _deliver(link, link.install, InstallReply.SERVING, parcel, on_progress)


async def measure(link: Link, parcel: Parcel) -> int:
    """Have a device prove and measure one sub-model that it does not keep; returns and raises as `install`.

    Raises:
        ProtocolError: what runs there is too old to know how.
    """
    return await _deliver(link, link.measure, InstallReply.MEASURED, parcel)


async def _deliver(
    link: Link, send: Send, wanted: InstallReply.Step, parcel: Parcel, on_progress: OnProgress | None = None
) -> int:
    furthest, attempts = -1, 0
    while True:
        reached = 0

        def note(progress: Progress) -> None:
            nonlocal reached
            reached = max(reached, progress.sent)
            if on_progress:
                on_progress(progress)

        try:
            return await _attempt(link, send, wanted, parcel, note)
        except (LinkError, DeviceError) as error:
            attempts = 1 if reached > furthest else attempts + 1
            furthest = max(furthest, reached)
            passing = isinstance(error, LinkError) or error.code in _AGAIN
            if not passing or attempts >= ATTEMPTS:
                raise
        await asyncio.sleep(FIRST_PAUSE_SECONDS * 2 ** (attempts - 1))


async def _attempt(
    link: Link, send: Send, wanted: InstallReply.Step, parcel: Parcel, on_progress: OnProgress
) -> int:
    offset: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    total = parcel.total

    async def requests() -> AsyncIterator[InstallRequest]:
        yield InstallRequest(header=parcel.header())
        async for chunk in parcel.chunks(await offset):
            yield InstallRequest(chunk=chunk)

    last = InstallReply()
    timeout = VERIFY_SECONDS + total / SLOWEST_BYTES_A_SECOND
    async with aclosing(send(requests(), timeout=timeout)) as replies:
        async for last in _not_silent(replies, link):
            if last.step == InstallReply.RECEIVING and not offset.done():
                offset.set_result(min(last.received_bytes, total))
            if last.step in _STEPS:
                sent = min(last.received_bytes, total)
                on_progress(Progress(parcel.submodel, parcel.device, _STEPS[last.step], sent, total))
    _check(last, f"{parcel.device or link.address} refused {parcel.submodel}", wanted)
    return last.microseconds


async def settle(link: Link, bundle: Bundle, *, device: str = "") -> None:
    """Tell a device to keep this bundle and to let the other one go.

    Raises:
        DeviceError: it does not hold this bundle.
        LinkError: it cannot be reached.
    """
    await settle_for(link, hashlib.sha256(bundle.manifest_bytes).digest(), device=device)


async def settle_for(link: Link, manifest: bytes, *, device: str = "") -> None:
    """Do what `settle` does, for the SHA-256 of a manifest."""
    await _tell(
        link, InstallRequest(settle=Settle(manifest=manifest)), f"{device or link.address} does not settle"
    )


async def release(link: Link, bundle: Bundle, submodels: Sequence[str], *, device: str = "") -> None:
    """Tell a device to let go of some sub-models of this bundle; raises what `settle` does."""
    manifest = hashlib.sha256(bundle.manifest_bytes).digest()
    await _tell(
        link,
        InstallRequest(release=Release(manifest=manifest, submodels=submodels)),
        f"{device or link.address} does not let go",
    )


async def _tell(link: Link, request: InstallRequest, failure: str) -> None:
    async def requests() -> AsyncIterator[InstallRequest]:
        yield request

    async with aclosing(link.install(requests(), timeout=VERIFY_SECONDS)) as replies:
        said = [reply async for reply in _not_silent(replies, link)]
    _check(said[-1] if said else InstallReply(), failure)


def _check(last: InstallReply, what: str, wanted: InstallReply.Step = InstallReply.SERVING) -> None:
    if last.step != wanted:
        reason = clean_text(last.reason, longest=300) or "it gave no reason"
        code = last.code if last.code in _AGAIN else "device.refused"
        raise DeviceError(f"{what}: {reason}", code=code)


async def _not_silent(replies: AsyncGenerator[InstallReply, None], link: Link) -> AsyncIterator[InstallReply]:
    while True:
        try:
            async with asyncio.timeout(SILENCE_SECONDS):
                reply = await anext(replies)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise DeadlineError(
                f"the device at {link.address} has said nothing for {SILENCE_SECONDS:.0f} s"
            ) from None
        yield reply
