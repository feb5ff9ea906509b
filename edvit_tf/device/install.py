"""Taking a sub-model: every check before a byte is stored, and the test vector before it serves.

Written so that a failure at any point leaves the store and what is served as they were.
"""

import asyncio
import hashlib
import logging
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from edvit_tf.bundle.codec import parse
from edvit_tf.bundle.manifest import FileEntry, Manifest, Submodel, Variant
from edvit_tf.bundle.signature import admit
from edvit_tf.device import record
from edvit_tf.device.engine import Engine, Runtime
from edvit_tf.device.memory import available_bytes
from edvit_tf.device.record import RECORD_FILE
from edvit_tf.device.served import NOTHING, Held, Served, Shelf
from edvit_tf.device.store import Store
from edvit_tf.errors import BundleError, DeviceError, EdvitError, ModelError
from edvit_tf.rpc.edvit_pb2 import InstallHeader, InstallReply, InstallRequest, Release
from edvit_tf.rpc.runtimes import accepts

# An aggregator that went away in the middle must not keep the next one out.
CHUNK_SECONDS = 8.0
# While a sub-model proves itself the aggregator hears that the device is alive.
SIGN_OF_LIFE_SECONDS = 1.0
# After these the sender may go on where it stopped.
_INTERRUPTED = ("device.interrupted",)
RESTING = "it rests while another version is on trial: there is no memory for both"

Swap = Callable[[Shelf], None]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Offer:
    """What a header announces."""

    manifest: Manifest
    manifest_bytes: bytes
    digest: str
    submodel: Submodel
    variant: Variant
    vector: FileEntry

    @property
    def blobs(self) -> tuple[tuple[int, str], ...]:
        """(size, SHA-256) of the flatbuffer and the test vector, in the order in which they come."""
        return (self.variant.bytes, self.variant.sha256), (self.vector.bytes, self.vector.sha256)

    @property
    def total(self) -> int:
        """Bytes of both."""
        return self.variant.bytes + self.vector.bytes


@dataclass(frozen=True, slots=True)
class Installer:
    """Puts sub-models into a store; `memory_bytes` is what they may take together.

    `signer` is the key of the device's fleet: only what it signed is installed. `available` says how many
    bytes the machine has free at this moment.
    """

    store: Store
    runtime: Runtime
    memory_bytes: int
    signer: Ed25519PublicKey
    available: Callable[[], int] = available_bytes

    async def install(
        self, requests: AsyncIterable[InstallRequest], shelf: Shelf, swap: Swap
    ) -> AsyncGenerator[InstallReply, None]:
        """Receive, check and prove one sub-model, record it, then hand what is on the shelf to `swap`.

        A device's first bundle is settled at once. A later one is on trial until `settle`; the settled one
        stays beside it, or rests when there is no memory for both and the header allows that.

        Raises:
            DeviceError: with the reason; nothing has changed.
            TrustError: the manifest is unsigned, another fleet's, expired, or older than what is served.
            BundleError: when the manifest is not valid.
        """
        parts = aiter(requests)
        first = await _next(parts)
        if first.WhichOneof("part") == "settle":
            async for reply in self._settle(first.settle.manifest.hex(), shelf, swap):
                yield reply
            return
        if first.WhichOneof("part") == "release":
            yield await self._release(first.release, shelf, swap)
            return
        offer = _offer(first)
        self._admit(first.header, offer, shelf.settled)
        base = self._room(offer, shelf, replaces=first.header.replaces)
        try:
            start = await asyncio.to_thread(self._start, offer) if first.header.resumes else 0
            yield InstallReply(step=InstallReply.RECEIVING, received_bytes=start)
            async with aclosing(self._receive(parts, offer, start)) as progress:
                async for received in progress:
                    yield InstallReply(step=InstallReply.RECEIVING, received_bytes=received)
            proof = asyncio.create_task(self._prove(offer.variant, offer.vector.sha256, shelf))
            async for _ in _signs_of_life(proof):
                yield InstallReply(step=InstallReply.VERIFYING, received_bytes=offer.total)
            fresh = proof.result()
            after = _with(base, offer, fresh)
            await asyncio.to_thread(self._record, offer.manifest_bytes, after)
        except EdvitError as error:
            if error.code not in _INTERRUPTED:
                self.store.keep_only(self._needed(shelf))
            raise
        swap(after)
        self.store.keep_only(self._needed(after))
        log.info(
            "serving %s of %s version %d", offer.submodel.id, offer.manifest.name, offer.manifest.version
        )
        yield InstallReply(
            step=InstallReply.SERVING, received_bytes=offer.total, microseconds=fresh.microseconds
        )

    async def measure(
        self, requests: AsyncIterable[InstallRequest], shelf: Shelf
    ) -> AsyncGenerator[InstallReply, None]:
        """Receive, check and prove one sub-model beside what is on the shelf, and forget it.

        What is not served may be older than what is.

        Raises:
            DeviceError: with the reason; `device.memory` when it does not fit beside what is served.
            TrustError: the manifest is unsigned, another fleet's, or expired.
            BundleError: when the manifest is not valid.
        """
        parts = aiter(requests)
        first = await _next(parts)
        offer = _offer(first)
        self._admit(first.header, offer, NOTHING)
        needed, taken = offer.variant.memory_bytes, _taken(shelf.engines())
        self._check_available(offer.submodel.id, needed)
        if taken + needed > self.memory_bytes:
            raise _no_memory(offer.submodel.id, needed, self.memory_bytes, taken)
        with self.store.scratch() as scratch:
            aside = replace(self, store=scratch)
            yield InstallReply(step=InstallReply.RECEIVING)
            async with aclosing(aside._receive(parts, offer, 0)) as progress:
                async for received in progress:
                    yield InstallReply(step=InstallReply.RECEIVING, received_bytes=received)
            proof = asyncio.create_task(aside._verify(offer.variant.sha256, offer.vector.sha256))
            async for _ in _signs_of_life(proof):
                yield InstallReply(step=InstallReply.VERIFYING, received_bytes=offer.total)
            microseconds = proof.result()
        log.info("measured %s in %s: %d µs", offer.submodel.id, offer.variant.format, microseconds)
        yield InstallReply(step=InstallReply.MEASURED, received_bytes=offer.total, microseconds=microseconds)

    async def _settle(self, digest: str, shelf: Shelf, swap: Swap) -> AsyncGenerator[InstallReply, None]:
        """Keep one of two bundles; if it rested it proves itself anew."""
        kept = next((served for served in shelf.generations if served.manifest == digest), None)
        if kept is None:
            raise DeviceError("this device does not hold that bundle", code="device.version")
        after = Shelf(settled=kept)
        await asyncio.to_thread(self.store.write, RECORD_FILE, record.to_json(after))
        swap(after)
        self.store.keep_only(self._needed(after))
        if not kept.serving:
            waking = asyncio.create_task(self._wake(kept, after))
            async for _ in _signs_of_life(waking):
                yield InstallReply(step=InstallReply.VERIFYING)
            after = Shelf(settled=waking.result())
            swap(after)
        log.info("settled for %s", kept.title)
        yield InstallReply(step=InstallReply.SERVING)

    async def _release(self, release: Release, shelf: Shelf, swap: Swap) -> InstallReply:
        """Let go of some sub-models of one bundle; the bundle itself stays, also without any."""
        digest = release.manifest.hex()
        if digest not in [served.manifest for served in shelf.generations]:
            raise DeviceError("this device does not hold that bundle", code="device.version")

        def rest(served: Served) -> Served:
            if served.manifest != digest:
                return served
            held = {name: one for name, one in served.held.items() if name not in release.submodels}
            return replace(served, held=held)

        after = Shelf(rest(shelf.settled), rest(shelf.trial))
        await asyncio.to_thread(self.store.write, RECORD_FILE, record.to_json(after))
        swap(after)
        self.store.keep_only(self._needed(after))
        log.info("let go of %s", ", ".join(sorted(release.submodels)))
        return InstallReply(step=InstallReply.SERVING)

    async def restore(self) -> Shelf:
        """Return what was installed before the device stopped, each sub-model proved again.

        One that fails is held without serving, with the reason; a record that cannot be read means an empty
        device, which an aggregator fills again.
        """
        written = self.store.read(RECORD_FILE)
        if written is None:
            return Shelf()
        try:
            was = record.read(written)
            shelf = Shelf(self._listed(was.settled), self._listed(was.trial))
        except (BundleError, DeviceError) as error:
            log.warning("starting empty: %s", error.message)
            return Shelf()
        if not was.resting:
            shelf = replace(shelf, settled=await self._wake(shelf.settled, shelf))
        return replace(shelf, trial=await self._wake(shelf.trial, shelf))

    def _listed(self, entry: record.Entry | None) -> Served:
        """What a record names, without engines."""
        if entry is None:
            return NOTHING
        manifest = self._manifest(entry.manifest)
        held = {
            submodel: _held(manifest, _variant(manifest.submodel(submodel), file))
            for submodel, file in entry.submodels.items()
        }
        return _served(manifest, entry.manifest, held).resting(RESTING)

    async def _wake(self, served: Served, shelf: Shelf) -> Served:
        """Load the sub-models of one bundle beside what is loaded on the shelf, as far as the memory goes."""
        if not served.manifest:
            return served
        manifest = self._manifest(served.manifest)
        awake: dict[str, Held] = {}
        for submodel, held in served.held.items():
            loaded = [*shelf.engines().values(), *(one for one in awake.values() if one.engine is not None)]
            taken = sum(one.memory_bytes for one in loaded)
            variant = _variant(manifest.submodel(submodel), held.variant)
            awake[submodel] = await self._proved(held, variant, taken, shelf)
        return replace(served, held=awake)

    def _manifest(self, digest: str) -> Manifest:
        if not self.store.intact(digest):
            raise DeviceError("the manifest in the store is missing or changed", code="device.hash")
        return parse(self.store.blob(digest).read_bytes())

    async def _proved(self, held: Held, variant: Variant, taken: int, shelf: Shelf) -> Held:
        try:
            if not accepts(variant.runtimes, self.runtime.name):
                raise _wrong_runtime(variant, self.runtime.name)
            if taken + held.memory_bytes > self.memory_bytes:
                raise _no_memory(held.variant, held.memory_bytes, self.memory_bytes, taken)
            self._check_available(held.variant, held.memory_bytes)
            for sha256 in (held.sha256, held.vector):
                if not await asyncio.to_thread(self.store.intact, sha256):
                    raise DeviceError("its file in the store is missing or changed", code="device.hash")
            return await self._prove(variant, held.vector, shelf)
        except EdvitError as error:
            log.warning("%s does not serve: %s", held.variant, error.message)
            return replace(held, engine=None, reason=error.message)

    def _admit(self, header: InstallHeader, offer: _Offer, settled: Served) -> None:
        """Decide whether a manifest may come in at all."""
        newest = settled.version if offer.manifest.name == settled.bundle else 0
        admit(
            self.signer,
            offer.manifest,
            header.manifest,
            header.signature,
            newest=newest,
            rollback=header.rollback,
        )
        if not accepts(offer.variant.runtimes, self.runtime.name):
            raise _wrong_runtime(offer.variant, self.runtime.name)

    def _room(self, offer: _Offer, shelf: Shelf, *, replaces: bool) -> Shelf:
        """Return the shelf as it may stay while the offer serves.

        Raises:
            DeviceError: there is no memory for it (`device.memory`).
        """
        needed = offer.variant.memory_bytes
        if offer.variant.sha256 not in shelf.engines():
            self._check_available(offer.submodel.id, needed)
        bases = [shelf]
        if replaces and shelf.settled.manifest != offer.digest and shelf.settled.manifest:
            bases.append(replace(shelf, settled=shelf.settled.resting(RESTING)))
        taken = 0
        for base in bases:
            others = _without(base, offer).engines()
            others.pop(offer.variant.sha256, None)
            taken = _taken(others)
            if taken + needed <= self.memory_bytes:
                return base
        raise _no_memory(offer.submodel.id, needed, self.memory_bytes, taken)

    def _check_available(self, what: str, needed: int) -> None:
        available = self.available()
        if needed > available:
            raise DeviceError(
                f"{what} takes {needed} bytes of memory and this machine has {available} free now: "
                "stop other programs on it, or choose a smaller sub-model",
                code="device.memory",
            )

    def _start(self, offer: _Offer) -> int:
        """How many bytes of an offer are here already."""
        start = 0
        for size, sha256 in offer.blobs:
            there = self.store.received(size, sha256)
            start += there
            if there < size:
                break
        return start

    async def _receive(
        self, parts: AsyncIterator[InstallRequest], offer: _Offer, start: int
    ) -> AsyncGenerator[int, None]:
        """Store the blobs, from byte `start` on; yield the bytes received so far."""
        received, before, rest = start, 0, b""
        for size, sha256 in offer.blobs:
            after = min(max(0, start - before), size)
            before += size
            if after == size and await asyncio.to_thread(self.store.intact, sha256):
                continue
            with await asyncio.to_thread(self.store.receive, size, sha256, after=after) as incoming:
                while incoming.missing:
                    data = rest or await _chunk(parts)
                    data, rest = data[: incoming.missing], data[incoming.missing :]
                    await asyncio.to_thread(incoming.write, data)
                    received += len(data)
                    yield received
                await asyncio.to_thread(incoming.keep)
        if rest:
            raise DeviceError("more bytes came than the manifest announces", code="device.size")

    async def _prove(self, variant: Variant, vector: str, shelf: Shelf) -> Held:
        """Run the test vector in a child process, then load the flatbuffer here, unless it serves already."""
        held = Held(variant.file, variant.sha256, vector, variant.format, variant.memory_bytes)
        loaded = shelf.engines().get(variant.sha256)
        if loaded is not None:
            return replace(held, engine=loaded.engine, microseconds=loaded.microseconds)
        microseconds = await self._verify(variant.sha256, vector)
        try:
            engine = Engine(await asyncio.to_thread(self.runtime.load, self.store.blob(variant.sha256)))
        except ModelError as error:
            raise DeviceError(error.message, code="device.load") from error
        return replace(held, engine=engine, microseconds=microseconds)

    async def _verify(self, sha256: str, vector: str) -> int:
        """The median microseconds of one picture, in a child process that also held it against its vector."""
        paths = self.store.blob(sha256), self.store.blob(vector)
        verdict = await asyncio.to_thread(self.runtime.verify, *paths)
        if not verdict.ok:
            raise DeviceError(f"the test vector failed: {verdict.reason}", code="device.vector")
        return verdict.microseconds

    def _record(self, manifest: bytes, shelf: Shelf) -> None:
        self.store.add(manifest)
        self.store.write(RECORD_FILE, record.to_json(shelf))

    def _needed(self, shelf: Shelf) -> set[str]:
        """Every blob that the shelf needs at the next start, and all variants of a bundle on trial."""
        hashes = {
            sha256
            for served in shelf.generations
            for held in served.held.values()
            for sha256 in (held.sha256, held.vector)
        }
        hashes |= {served.manifest for served in shelf.generations}
        if shelf.trial.manifest:
            manifest = parse(self.store.blob(shelf.trial.manifest).read_bytes())
            hashes |= {entry.sha256 for entry in manifest.every_file()}
        return hashes


def _offer(first: InstallRequest) -> _Offer:
    if first.WhichOneof("part") != "header":
        raise DeviceError("an installation begins with its header", code="device.stream")
    header: InstallHeader = first.header
    manifest = parse(header.manifest)
    submodel = manifest.submodel(header.submodel)
    variant = _variant(submodel, header.variant)
    digest = hashlib.sha256(header.manifest).hexdigest()
    return _Offer(manifest, header.manifest, digest, submodel, variant, _vector(manifest, variant))


def _without(shelf: Shelf, offer: _Offer) -> Shelf:
    """The shelf with room for an offer: what the offer replaces is gone."""

    def rest(served: Served) -> Served:
        return replace(served, held={k: v for k, v in served.held.items() if k != offer.submodel.id})

    fresh = _served(offer.manifest, offer.digest, {})
    if shelf.settled.manifest in ("", offer.digest):
        return replace(shelf, settled=rest(shelf.settled) if shelf.settled.manifest else fresh)
    if shelf.trial.manifest == offer.digest:
        return replace(shelf, trial=rest(shelf.trial))
    return replace(shelf, trial=fresh)


def _with(shelf: Shelf, offer: _Offer, fresh: Held) -> Shelf:
    """The shelf with the offer on it."""
    room = _without(shelf, offer)
    if room.settled.manifest == offer.digest:
        held = {**room.settled.held, offer.submodel.id: fresh}
        return replace(room, settled=replace(room.settled, held=held))
    return replace(room, trial=replace(room.trial, held={**room.trial.held, offer.submodel.id: fresh}))


async def _signs_of_life(task: "asyncio.Task[object]") -> AsyncGenerator[None, None]:
    """Yield at once and then every second until the task is done; a caller that leaves cancels it."""
    try:
        yield
        while not task.done():
            await asyncio.wait([task], timeout=SIGN_OF_LIFE_SECONDS)
            if not task.done():
                yield
    finally:
        task.cancel()


def _held(manifest: Manifest, variant: Variant) -> Held:
    vector = _vector(manifest, variant).sha256
    return Held(variant.file, variant.sha256, vector, variant.format, variant.memory_bytes)


def _vector(manifest: Manifest, variant: Variant) -> FileEntry:
    return next(entry for entry in manifest.files if entry.file == variant.test_vector)


def _served(manifest: Manifest, digest: str, held: dict[str, Held]) -> Served:
    shape = (manifest.input.height, manifest.input.width, manifest.input.channels)
    return Served(manifest.name, manifest.version, digest, shape, held)


def _variant(submodel: Submodel, file: str) -> Variant:
    for variant in submodel.variants:
        if variant.file == file:
            return variant
    raise DeviceError(f"{submodel.id} has no variant {file[:80]!r}", code="device.variant")


def _taken(loaded: Mapping[str, Held]) -> int:
    return sum(held.memory_bytes for held in loaded.values())


def _no_memory(what: str, needed: int, given: int, taken: int) -> DeviceError:
    return DeviceError(
        f"{what} takes {needed} bytes of memory, and of the {given} that this device gives {taken} are taken",
        code="device.memory",
    )


def _wrong_runtime(variant: Variant, runtime: str) -> DeviceError:
    wanted = " or ".join(f"{name} {version}" for name, version in sorted(variant.runtimes.items()))
    return DeviceError(
        f"format {variant.format} needs {wanted}, and this device runs {runtime}", code="device.runtime"
    )


async def _chunk(parts: AsyncIterator[InstallRequest]) -> bytes:
    part = await _next(parts)
    if part.WhichOneof("part") != "chunk" or not part.chunk:
        raise DeviceError("after the header only bytes may come", code="device.stream")
    return part.chunk


async def _next(parts: AsyncIterator[InstallRequest]) -> InstallRequest:
    try:
        async with asyncio.timeout(CHUNK_SECONDS):
            return await anext(parts)
    except StopAsyncIteration:
        raise DeviceError("the sub-model ended before its last byte", code="device.interrupted") from None
    except TimeoutError:
        raise DeviceError(f"nothing came for {CHUNK_SECONDS:.0f} s", code="device.interrupted") from None
