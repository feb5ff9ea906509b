"""Installing: every check before it serves, and a failure that changes nothing."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edvit_tf.bundle.manifest import Variant
from edvit_tf.bundle.reader import Bundle
from edvit_tf.bundle.signature import sign_manifest
from edvit_tf.device.engine import Runtime, installed_runtime
from edvit_tf.device.install import Installer
from edvit_tf.device.record import RECORD_FILE
from edvit_tf.device.served import Shelf
from edvit_tf.device.service import DeviceService, Facts
from edvit_tf.device.store import Store
from edvit_tf.errors import DeviceError, ProtocolError
from edvit_tf.rpc.edvit_pb2 import (
    HelloReply,
    HelloRequest,
    InferRequest,
    InstallHeader,
    InstallReply,
    InstallRequest,
    Picture,
    Settle,
)
from edvit_tf.rpc.link import PROTOCOL
from edvit_tf.runtime.check import Verdict, verify

# The child process has a test of its own; here the check runs in this one.
RUNTIME = replace(installed_runtime(), verify=verify)
OWNER = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
SIGNER = OWNER.public_key()
Spoil = Callable[[list[InstallRequest]], list[InstallRequest]]


def device(
    store: Store, *, memory_bytes: int = 10**9, runtime: Runtime = RUNTIME, shelf: Shelf | None = None
) -> DeviceService:
    facts = Facts("a" * 64, "test", runtime.name, memory_bytes)
    return DeviceService(facts, shelf or Shelf(), Installer(store, runtime, memory_bytes, SIGNER))


def requests(bundle: Bundle, submodel: str, variant: Variant) -> list[InstallRequest]:
    header = InstallHeader(
        manifest=bundle.manifest_bytes,
        submodel=submodel,
        variant=variant.file,
        signature=sign_manifest(OWNER, bundle.manifest_bytes),
    )
    data = bundle.file(variant.file).read_bytes() + bundle.file(variant.test_vector).read_bytes()
    # A size that divides neither: a chunk spans flatbuffer and vector.
    chunks = [data[start : start + 10_007] for start in range(0, len(data), 10_007)]
    return [InstallRequest(header=header), *(InstallRequest(chunk=chunk) for chunk in chunks)]


async def install(
    service: DeviceService,
    bundle: Bundle,
    number: int = 0,
    *,
    format: str | None = None,  # noqa: A002
    spoil: Spoil = list,
) -> list[InstallReply]:
    submodel = bundle.manifest.submodels[number]

    async def stream() -> AsyncIterator[InstallRequest]:
        for request in spoil(requests(bundle, submodel.id, submodel.variant(format))):
            yield request

    return [reply async for reply in service.install(stream())]


async def settle(service: DeviceService, bundle: Bundle) -> list[InstallReply]:
    async def stream() -> AsyncIterator[InstallRequest]:
        digest = hashlib.sha256(bundle.manifest_bytes).digest()
        yield InstallRequest(settle=Settle(manifest=digest))

    return [reply async for reply in service.install(stream())]


async def said(service: DeviceService) -> HelloReply:
    return await service.hello(HelloRequest(protocol=PROTOCOL))


def question(bundle: Bundle, *submodels: str) -> InferRequest:
    size = bundle.manifest.input
    image = bundle.vector(bundle.manifest.submodels[0].variants[0]).image
    return InferRequest(
        request_id="q1",
        bundle=bundle.manifest.name,
        bundle_version=bundle.manifest.version,
        submodels=submodels or (bundle.manifest.submodels[0].id,),
        picture=Picture(
            codec="raw", height=size.height, width=size.width, channels=size.channels, data=image.tobytes()
        ),
    )


def blobs(store: Store) -> set[str]:
    """Those that are whole."""
    return {path.name for path in (store.path / "blobs").iterdir() if path.suffix != ".part"}


async def test_a_sub_model_is_received_proved_and_serves(store: Store, bundle: Bundle) -> None:
    service = device(store)
    replies = await install(service, bundle)
    steps = [reply.step for reply in replies]
    assert steps[-2:] == [InstallReply.VERIFYING, InstallReply.SERVING]
    received = [reply.received_bytes for reply in replies if reply.step == InstallReply.RECEIVING]
    variant = bundle.manifest.submodels[0].variants[0]
    assert received == sorted(received)
    assert received[-1] == variant.bytes + bundle.file(variant.test_vector).stat().st_size
    hello = await said(service)
    assert (hello.bundle, hello.bundle_version) == (bundle.manifest.name, bundle.manifest.version)
    (holding,) = hello.holdings
    assert (holding.submodel, holding.sha256, holding.serving) == ("submodel-0", variant.sha256, True)
    reply = await service.infer(question(bundle))
    assert reply.request_id == "q1"
    expected = bundle.vector(variant)
    np.testing.assert_allclose(np.frombuffer(reply.outputs[0].feature, "<f4"), expected.feature, atol=1e-3)
    np.testing.assert_allclose(np.frombuffer(reply.outputs[0].logits, "<f4"), expected.logits, atol=1e-3)
    service.close()


async def test_two_sub_models_of_a_bundle_serve_together(store: Store, bundle: Bundle) -> None:
    service = device(store)
    await install(service, bundle, 0)
    await install(service, bundle, 1)
    ids = [submodel.id for submodel in bundle.manifest.submodels[:2]]
    reply = await service.infer(question(bundle, *ids))
    assert [output.submodel for output in reply.outputs] == ids
    service.close()


async def test_a_newer_version_replaces_all_of_the_older_and_never_the_reverse(
    store: Store, bundle: Bundle, newer: Bundle
) -> None:
    service = device(store)
    await install(service, bundle, 0)
    await install(service, bundle, 1)
    await install(service, newer, 1)
    assert [generation.settled for generation in (await said(service)).generations] == [True, False]
    await settle(service, newer)
    hello = await said(service)
    assert hello.bundle_version == newer.manifest.version
    assert [holding.submodel for holding in hello.holdings] == ["submodel-1"]
    assert len(blobs(store)) == 3  # manifest, flatbuffer, vector
    (refused,) = await install(service, bundle, 0)
    assert refused.step == InstallReply.REFUSED
    assert "older" in refused.reason
    assert (await said(service)).bundle_version == newer.manifest.version
    service.close()


def cut(requests: list[InstallRequest]) -> list[InstallRequest]:
    return requests[:-1]


def flip(requests: list[InstallRequest]) -> list[InstallRequest]:
    data = bytearray(requests[1].chunk)
    data[500] ^= 1
    return [requests[0], InstallRequest(chunk=bytes(data)), *requests[2:]]


def lengthen(requests: list[InstallRequest]) -> list[InstallRequest]:
    return [*requests[:-1], InstallRequest(chunk=requests[-1].chunk + b"x")]


def headless(requests: list[InstallRequest]) -> list[InstallRequest]:
    return requests[1:]


def two_headed(requests: list[InstallRequest]) -> list[InstallRequest]:
    return [requests[0], *requests]


def empty(requests: list[InstallRequest]) -> list[InstallRequest]:
    return [*requests[:2], InstallRequest(chunk=b""), *requests[2:]]


def silent(requests: list[InstallRequest]) -> list[InstallRequest]:
    return requests[:0]


def other_variant(requests: list[InstallRequest]) -> list[InstallRequest]:
    requests[0].header.variant = "submodels/other.tflite"
    return requests


def other_submodel(requests: list[InstallRequest]) -> list[InstallRequest]:
    requests[0].header.submodel = "submodel-99"
    return requests


def unsigned(requests: list[InstallRequest]) -> list[InstallRequest]:
    requests[0].header.signature = b""
    return requests


def signed_by_another(requests: list[InstallRequest]) -> list[InstallRequest]:
    stranger = Ed25519PrivateKey.from_private_bytes(bytes(32))
    requests[0].header.signature = sign_manifest(stranger, requests[0].header.manifest)
    return requests


def other_manifest(requests: list[InstallRequest]) -> list[InstallRequest]:
    requests[0].header.manifest = b"{}"
    return requests


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (cut, "ended before its last byte"),
        (flip, "SHA-256"),
        (lengthen, "more bytes"),
        (headless, "begins with its header"),
        (two_headed, "only bytes may come"),
        (empty, "only bytes may come"),
        (silent, "ended before"),
        (other_variant, "no variant"),
        (other_submodel, "no sub-model"),
        (other_manifest, "manifest"),
        (unsigned, "not signed"),
        (signed_by_another, "not signed by this fleet"),
    ],
)
async def test_what_does_not_fit_is_refused_and_the_old_one_serves_on(
    store: Store, bundle: Bundle, newer: Bundle, spoil: Spoil, reason: str
) -> None:
    service = device(store)
    await install(service, bundle)
    before = blobs(store), store.read(RECORD_FILE)
    last = (await install(service, newer, spoil=spoil))[-1]
    assert last.step == InstallReply.REFUSED
    assert reason in last.reason
    assert (blobs(store), store.read(RECORD_FILE)) == before
    assert len((await service.infer(question(bundle))).outputs) == 1
    service.close()


@pytest.mark.fault
async def test_no_changed_or_shortened_flatbuffer_is_ever_loaded(store: Store, bundle: Bundle) -> None:
    def loaded(*_: Path) -> Verdict:
        raise AssertionError("bytes that are not the manifest's were handed to the interpreter")

    service = device(store, runtime=replace(RUNTIME, verify=loaded))
    random = np.random.default_rng(11)
    for attempt in range(1000):

        def spoil(good: list[InstallRequest], shorten: bool = attempt % 2 == 1) -> list[InstallRequest]:
            data = bytearray(b"".join(request.chunk for request in good))
            place = int(random.integers(len(data)))
            if shorten:
                del data[place:]
            else:
                data[place] ^= 1 << int(random.integers(8))
            return [
                good[0],
                *(InstallRequest(chunk=bytes(data[i : i + 7919])) for i in range(0, len(data), 7919)),
            ]

        last = (await install(service, bundle, spoil=spoil))[-1]
        assert last.step == InstallReply.REFUSED
    assert blobs(store) == set()


async def test_a_failed_test_vector_keeps_the_old_one(store: Store, bundle: Bundle, newer: Bundle) -> None:
    verdicts = iter([Verdict(ok=True, reason=""), Verdict(ok=False, reason="cosine 0.270")])
    service = device(store, runtime=replace(RUNTIME, verify=lambda *_: next(verdicts)))
    await install(service, bundle)
    last = (await install(service, newer, format="int8"))[-1]
    assert last.step == InstallReply.REFUSED
    assert "cosine 0.270" in last.reason
    assert (await said(service)).bundle_version == bundle.manifest.version
    service.close()


@pytest.mark.fault
async def test_a_full_disk_keeps_the_old_one(
    store: Store, bundle: Bundle, newer: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = device(store)
    await install(service, bundle)
    before = blobs(store)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("edvit_tf.device.store.os.fsync", full)
    last = (await install(service, newer, format="int8"))[-1]
    assert "is full" in last.reason
    assert blobs(store) == before
    assert len((await service.infer(question(bundle))).outputs) == 1
    service.close()


async def test_memory_counts_what_stays(store: Store, bundle: Bundle, newer: Bundle) -> None:
    needed = bundle.manifest.submodels[0].variants[0].memory_bytes
    (refused,) = await install(device(store, memory_bytes=needed - 1), bundle)
    assert "memory" in refused.reason
    service = device(store, memory_bytes=needed)
    assert (await install(service, bundle, 0))[-1].step == InstallReply.SERVING
    assert (await install(service, bundle, 0))[-1].step == InstallReply.SERVING, "it replaces itself"
    assert (await install(service, bundle, 1))[-1].step == InstallReply.REFUSED
    assert (await install(service, newer, 1))[-1].code == "device.memory", "not beside the old version"
    assert len((await service.infer(question(bundle))).outputs) == 1
    service.close()


@pytest.mark.fault
async def test_memory_pressure_is_a_refusal_and_the_old_one_serves_on(
    store: Store, bundle: Bundle, newer: Bundle
) -> None:
    free = [10**9]
    installer = Installer(store, RUNTIME, 10**9, SIGNER, available=lambda: free[0])
    service = DeviceService(Facts("a" * 64, "test", RUNTIME.name, 10**9), Shelf(), installer)
    await install(service, bundle)
    free[0] = 1000
    (refused,) = await install(service, newer, format="int8")
    assert (refused.step, refused.code) == (InstallReply.REFUSED, "device.memory")
    assert "1000 free now" in refused.reason
    assert len((await service.infer(question(bundle))).outputs) == 1
    service.close()


async def test_what_fits_no_longer_after_a_restart_says_so(store: Store, bundle: Bundle) -> None:
    service = device(store)
    await install(service, bundle, 0)
    await install(service, bundle, 1)
    service.close()
    needed = bundle.manifest.submodels[0].variants[0].memory_bytes
    shelf = await Installer(store, RUNTIME, needed, SIGNER).restore()
    first, second = shelf.settled.held["submodel-0"], shelf.settled.held["submodel-1"]
    assert first.engine is not None
    assert second.engine is None
    assert "bytes of memory" in second.reason
    shelf.close()


async def test_an_interpreter_that_the_manifest_does_not_name_is_refused(
    store: Store, bundle: Bundle
) -> None:
    service = device(store, runtime=replace(RUNTIME, name="tflite-runtime/2.1"))
    (refused,) = await install(service, bundle)
    assert "this device runs tflite-runtime/2.1" in refused.reason


async def test_one_installation_at_a_time(store: Store, bundle: Bundle) -> None:
    service = device(store)
    begun = asyncio.Event()

    async def slow() -> AsyncIterator[InstallRequest]:
        submodel = bundle.manifest.submodels[0]
        yield requests(bundle, submodel.id, submodel.variants[0])[0]
        begun.set()
        await asyncio.sleep(60)

    async def first() -> None:
        async for _ in service.install(slow()):
            pass

    task = asyncio.create_task(first())
    await begun.wait()
    (refused,) = await install(service, bundle)
    assert "try again" in refused.reason
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert blobs(store) == set()
    assert (await install(service, bundle))[-1].step == InstallReply.SERVING
    service.close()


async def test_a_restart_serves_what_was_there(store: Store, bundle: Bundle) -> None:
    service = device(store)
    await install(service, bundle)
    service.close()
    again = device(store, shelf=await Installer(store, RUNTIME, 10**9, SIGNER).restore())
    (before,), (after,) = (await said(service)).holdings, (await said(again)).holdings
    assert (after.submodel, after.sha256, after.serving) == (before.submodel, before.sha256, True)
    assert after.microseconds > 0
    assert len((await again.infer(question(bundle))).outputs) == 1
    again.close()


async def test_a_restart_proves_it_again(store: Store, bundle: Bundle) -> None:
    service = device(store)
    await install(service, bundle)
    service.close()
    blob = store.blob(bundle.manifest.submodels[0].variants[0].sha256)
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.write_bytes(data)
    again = device(store, shelf=await Installer(store, RUNTIME, 10**9, SIGNER).restore())
    (holding,) = (await said(again)).holdings
    assert not holding.serving
    assert "missing or changed" in holding.reason
    with pytest.raises(DeviceError, match="does not serve"):
        await again.infer(question(bundle))
    assert (await install(again, bundle))[-1].step == InstallReply.SERVING
    again.close()


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"{}",
        b"[]",
        json.dumps({"manifest": "0" * 64, "submodels": {}}).encode(),
        json.dumps({"manifest": "../../etc/passwd", "submodels": {"a": "b"}}).encode(),
    ],
)
async def test_a_broken_record_means_an_empty_device(store: Store, record: bytes) -> None:
    store.write(RECORD_FILE, record)
    assert await Installer(store, RUNTIME, 10**9, SIGNER).restore() == Shelf()


async def test_the_check_runs_in_a_child(store: Store, bundle: Bundle) -> None:
    service = device(store, runtime=installed_runtime())
    assert (await install(service, bundle))[-1].step == InstallReply.SERVING
    service.close()


async def test_another_protocol_is_a_sentence(store: Store) -> None:
    service = device(store)
    assert (await service.hello(HelloRequest(protocol=PROTOCOL - 1))).protocol == PROTOCOL
    with pytest.raises(ProtocolError, match="update edvit-tf"):
        await service.hello(HelloRequest(protocol=PROTOCOL + 1))


def test_the_golden_bundle_is_where_it_belongs(bundle: Bundle) -> None:
    assert bundle.path == Path(__file__).parents[1] / "vectors" / "bundle"
    assert len(bundle.manifest.submodels) >= 2
