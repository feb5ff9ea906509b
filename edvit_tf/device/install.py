"""Taking a sub-model: every check before a byte is stored, and the test vector before it serves.

Written so that a failure at any point leaves the store and what is served as they were.
"""

import asyncio
import dataclasses
import hashlib
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from edvit_tf.bundle.codec import parse
from edvit_tf.bundle.manifest import FileEntry, Manifest, Submodel, Variant
from edvit_tf.device.admission import check_admission
from edvit_tf.device.engine import Engine, Runtime
from edvit_tf.device.served import Held, Served
from edvit_tf.device.store import Store
from edvit_tf.errors import BundleError, DeviceError, EdvitError, ModelError
from edvit_tf.rpc.edvit_pb2 import InstallHeader, InstallReply, InstallRequest
from edvit_tf.rpc.runtimes import accepts

RECORD_FILE = "installed.json"
# An aggregator that went away in the middle must not keep the next one out.
CHUNK_SECONDS = 30.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Installer:
    """Puts sub-models into a store; `memory_bytes` is what they may take together.

    `signer` is the key of the device's fleet: only what it signed is installed.
    """

    store: Store
    runtime: Runtime
    memory_bytes: int
    signer: Ed25519PublicKey | None = None

    async def install(
        self, requests: AsyncIterable[InstallRequest], served: Served, swap: Callable[[Served], None]
    ) -> AsyncGenerator[InstallReply, None]:
        """Receive, check and prove one sub-model, record it, then hand what is served from now on to `swap`.

        Raises:
            DeviceError: with the reason; nothing has changed.
            BundleError: when the manifest is not valid.
        """
        parts = aiter(requests)
        header = await _header(parts)
        manifest = parse(header.manifest)
        check_admission(self.signer, header, manifest, served)
        digest = hashlib.sha256(header.manifest).hexdigest()
        submodel = manifest.submodel(header.submodel)
        variant = _variant(submodel, header.variant)
        self._check(digest, submodel, variant, served)
        vector = _vector(manifest, variant)
        before = served.held if served.manifest == digest else {}
        try:
            yield InstallReply(step=InstallReply.RECEIVING)
            blobs = (variant.bytes, variant.sha256), (vector.bytes, vector.sha256)
            async with aclosing(self._receive(parts, blobs)) as progress:
                async for received in progress:
                    yield InstallReply(step=InstallReply.RECEIVING, received_bytes=received)
            yield InstallReply(step=InstallReply.VERIFYING, received_bytes=variant.bytes + vector.bytes)
            engine = await self._prove(variant.sha256, vector.sha256)
            fresh = dataclasses.replace(_held(manifest, variant), engine=engine)
            after = _served(manifest, digest, {**before, submodel.id: fresh})
            await asyncio.to_thread(self._record, header.manifest, after)
            swap(after)
            served = after
        finally:
            self.store.keep_only(_blobs(served))
        log.info("serving %s of %s", submodel.id, served.title)
        yield InstallReply(step=InstallReply.SERVING, received_bytes=variant.bytes + vector.bytes)

    async def restore(self) -> Served:
        """Return what was installed before the device stopped, each sub-model proved again.

        One that fails is held without serving, with the reason; a record that cannot be read means an empty
        device, which an aggregator fills again.
        """
        record = self.store.read(RECORD_FILE)
        if record is None:
            return Served()
        try:
            digest, files = _read_record(record)
            manifest = self._manifest(digest)
            variants = {
                submodel: _variant(manifest.submodel(submodel), file) for submodel, file in files.items()
            }
        except (BundleError, DeviceError) as error:
            log.warning("starting empty: %s", error.message)
            return Served()
        held = {
            submodel: await self._proved(_held(manifest, variant), variant)
            for submodel, variant in variants.items()
        }
        return _served(manifest, digest, held)

    def _manifest(self, digest: str) -> Manifest:
        if not self.store.intact(digest):
            raise DeviceError("the manifest in the store is missing or changed", code="device.hash")
        return parse(self.store.blob(digest).read_bytes())

    async def _proved(self, held: Held, variant: Variant) -> Held:
        try:
            if not accepts(variant.runtimes, self.runtime.name):
                raise _wrong_runtime(variant, self.runtime.name)
            for sha256 in (held.sha256, held.vector):
                if not await asyncio.to_thread(self.store.intact, sha256):
                    raise DeviceError("its file in the store is missing or changed", code="device.hash")
            return dataclasses.replace(held, engine=await self._prove(held.sha256, held.vector))
        except EdvitError as error:
            log.warning("%s does not serve: %s", held.variant, error.message)
            return dataclasses.replace(held, reason=error.message)

    def _check(self, digest: str, submodel: Submodel, variant: Variant, served: Served) -> None:
        if not accepts(variant.runtimes, self.runtime.name):
            raise _wrong_runtime(variant, self.runtime.name)
        others = served.memory_without(submodel.id) if served.manifest == digest else 0
        if others + variant.memory_bytes > self.memory_bytes:
            raise DeviceError(
                f"{submodel.id} takes {variant.memory_bytes} bytes of memory, and of the {self.memory_bytes} "
                f"that this device gives {others} are taken",
                code="device.memory",
            )

    async def _receive(
        self, parts: AsyncIterator[InstallRequest], blobs: tuple[tuple[int, str], ...]
    ) -> AsyncGenerator[int, None]:
        """Store the blobs (size, SHA-256), which come in this order; yield the bytes received so far."""
        received = 0
        rest = b""
        for size, sha256 in blobs:
            with self.store.receive(size, sha256) as incoming:
                while incoming.missing:
                    data = rest or await _chunk(parts)
                    data, rest = data[: incoming.missing], data[incoming.missing :]
                    await asyncio.to_thread(incoming.write, data)
                    received += len(data)
                    yield received
                await asyncio.to_thread(incoming.keep)
        if rest:
            raise DeviceError("more bytes came than the manifest announces", code="device.size")

    async def _prove(self, flatbuffer: str, vector: str) -> Engine:
        """Run the test vector in a child process, then load the flatbuffer here."""
        paths = self.store.blob(flatbuffer), self.store.blob(vector)
        verdict = await asyncio.to_thread(self.runtime.verify, *paths)
        if not verdict.ok:
            raise DeviceError(f"the test vector failed: {verdict.reason}", code="device.vector")
        try:
            return Engine(await asyncio.to_thread(self.runtime.load, paths[0]))
        except ModelError as error:
            raise DeviceError(error.message, code="device.load") from error

    def _record(self, manifest: bytes, served: Served) -> None:
        digest = self.store.add(manifest)
        variants = {submodel: held.variant for submodel, held in served.held.items()}
        record = json.dumps({"manifest": digest, "submodels": variants}, indent=2, sort_keys=True)
        self.store.write(RECORD_FILE, record.encode())


def _blobs(served: Served) -> set[str]:
    """Every blob that `served` needs at the next start."""
    return {served.manifest}.union(*({held.sha256, held.vector} for held in served.held.values()))


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


def _wrong_runtime(variant: Variant, runtime: str) -> DeviceError:
    wanted = " or ".join(f"{name} {version}" for name, version in sorted(variant.runtimes.items()))
    return DeviceError(
        f"format {variant.format} needs {wanted}, and this device runs {runtime}", code="device.runtime"
    )


async def _header(parts: AsyncIterator[InstallRequest]) -> InstallHeader:
    first = await _next(parts)
    if first.WhichOneof("part") != "header":
        raise DeviceError("an installation begins with its header", code="device.stream")
    return first.header


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
        raise DeviceError("the sub-model ended before its last byte", code="device.size") from None
    except TimeoutError:
        raise DeviceError(f"nothing came for {CHUNK_SECONDS:.0f} s", code="device.stream") from None


def _read_record(record: bytes) -> tuple[str, dict[str, str]]:
    try:
        document = json.loads(record)
        return str(document["manifest"]), {str(key): str(file) for key, file in document["submodels"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DeviceError(f"{RECORD_FILE} in the store is broken", code="device.record") from error
