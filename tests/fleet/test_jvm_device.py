"""A device on a Java virtual machine against strangers, impostors and whatever else a device must bear.

What a fleet does with such a device is in `test_processes.py`, where it stands beside those of Python.
"""

import asyncio
import contextlib
import hashlib
import json
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from random import Random

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from edvit_tf.bundle.codec import serialise
from edvit_tf.bundle.reader import Bundle, open_bundle
from edvit_tf.bundle.signature import Rollback, sign_manifest, sign_rollback
from edvit_tf.bundle.writer import write_manifest
from edvit_tf.errors import EdvitError, TrustError
from edvit_tf.fleet import Announced, deploy
from edvit_tf.fleet.enrol import enrol
from edvit_tf.fleet.keys import FleetKeys, make_keys
from edvit_tf.rpc.certificates import issue_for_device, key_of, utc_now
from edvit_tf.rpc.channel import HANDSHAKE_SECONDS, MOST_CONNECTIONS, GrpcLink
from edvit_tf.rpc.edvit_pb2 import (
    HelloReply,
    HelloRequest,
    InferRequest,
    InstallHeader,
    InstallReply,
    InstallRequest,
    Picture,
)
from edvit_tf.rpc.link import PROTOCOL
from edvit_tf.rpc.pairing import WRONG_CODES, new_code, read_code
from edvit_tf.rpc.pairing_channel import PairingLink
from edvit_tf.rpc.tls import Credentials
from edvit_tf.runtime.interpreter import Flatbuffer
from tests.fleet import jvm
from tests.fleet.fakes import picture
from tests.fleet.processes import DeviceProcess, ThrowAwayFleet, device_fleet
from tests.rpc.fleet import TestFleet
from tests.rpc.silent import slow_loris
from tests.rpc.test_tls import HOST, p99, refusal, timed, tls
from tests.vectors.test_vectors import INDEX

pytestmark = [pytest.mark.android, pytest.mark.fleet]

OTHER_OWNER = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
VECTORS = Path(__file__).parents[1] / "vectors"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ThrowAwayFleet]:
    with device_fleet(["jay"], tmp_path_factory.mktemp("jvm"), programs={"jay": jvm.program()}) as fleet:
        yield fleet


@pytest.fixture(scope="module")
def device(made: ThrowAwayFleet) -> DeviceProcess:
    return made.devices[0]


@pytest.fixture(scope="module")
def signed(made: ThrowAwayFleet, device: DeviceProcess, bundle: Bundle) -> Bundle:
    """What the device serves."""
    owned = made.sign(bundle)
    there = [Announced(device.address, device.id, device.name)]
    asyncio.run(deploy(owned, there, connect=made.connect))
    return owned


@pytest.fixture
async def link(made: ThrowAwayFleet, device: DeviceProcess) -> AsyncIterator[GrpcLink]:
    opened = GrpcLink(device.address, made.keys.credentials, device.id)
    yield opened
    await opened.close()


def members(keys: FleetKeys) -> TestFleet:
    """Whoever the fleet's authority certifies."""
    fleet = TestFleet()
    fleet.authority = keys.authority
    return fleet


def question(bundle: Bundle, image: np.ndarray, *submodels: str) -> InferRequest:
    height, width, channels = image.shape
    return InferRequest(
        request_id="q",
        bundle=bundle.manifest.name,
        bundle_version=bundle.manifest.version,
        submodels=submodels,
        picture=Picture(codec="raw", height=height, width=width, channels=channels, data=image.tobytes()),
    )


async def said(link: GrpcLink) -> HelloReply:
    return await link.hello(HelloRequest(protocol=PROTOCOL), timeout=5)


async def install(link: GrpcLink, *requests: InstallRequest) -> InstallReply:
    async def stream() -> AsyncIterator[InstallRequest]:
        for request in requests:
            yield request

    return [reply async for reply in link.install(stream(), timeout=60)][-1]


def parts(
    bundle: Bundle, *, manifest: bytes = b"", signature: bytes | None = None, rollback: bytes = b""
) -> list[InstallRequest]:
    """All that is sent to install the first sub-model."""
    submodel = bundle.manifest.submodels[0]
    variant = submodel.variants[0]
    header = InstallHeader(
        manifest=manifest or bundle.manifest_bytes,
        submodel=submodel.id,
        variant=variant.file,
        signature=bundle.signature if signature is None else signature,
        rollback=rollback,
    )
    data = bundle.file(variant.file).read_bytes() + bundle.file(variant.test_vector).read_bytes()
    return [InstallRequest(header=header), InstallRequest(chunk=data)]


async def test_its_features_are_those_of_the_interpreter_here_bit_for_bit(
    link: GrpcLink, signed: Bundle
) -> None:
    formats = {held.submodel: held.format for held in (await said(link)).holdings}
    assert set(formats) == {submodel.id for submodel in signed.manifest.submodels}
    for seed in range(20):
        image = picture(signed, seed)
        reply = await link.infer(question(signed, image, *formats), timeout=5)
        assert [output.submodel for output in reply.outputs] == list(formats)
        for output in reply.outputs:
            variant = signed.manifest.submodel(output.submodel).variant(formats[output.submodel])
            here = Flatbuffer(signed.file(variant.file)).run(image)
            assert output.feature == here.feature.tobytes()
            assert output.logits == here.logits.tobytes()


async def test_what_it_cannot_answer_it_refuses_by_name(link: GrpcLink, signed: Bundle) -> None:
    image = picture(signed)
    right = question(signed, image, "submodel-0")
    wrong = {
        "device.version": question(signed, image, "submodel-0"),
        "device.submodel": question(signed, image, "submodel-9"),
        "device.picture": question(signed, image[:-1], "submodel-0"),
    }
    wrong["device.version"].bundle_version += 1
    for code, request in wrong.items():
        with pytest.raises(EdvitError) as caught:
            await link.infer(request, timeout=5)
        assert caught.value.code == code
    right.picture.codec = "jpeg"
    with pytest.raises(EdvitError, match="raw"):
        await link.infer(right, timeout=5)
    with pytest.raises(EdvitError) as caught:
        await link.hello(HelloRequest(protocol=PROTOCOL + 1), timeout=5)
    assert caught.value.code == "protocol"


def test_it_speaks_tls_1_3_and_no_other(made: ThrowAwayFleet, device: DeviceProcess, tmp_path: Path) -> None:
    context = tls(ssl.create_default_context(), members(made.keys).aggregator(), tmp_path)

    def version() -> str | None:
        with (
            socket.create_connection((HOST, device.port), timeout=5) as plain,
            context.wrap_socket(plain, server_hostname="device.edvit") as secured,
        ):
            return secured.version()

    assert version() == "TLSv1.3"
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises((ssl.SSLError, ConnectionError)):
        version()


@pytest.mark.fault
async def test_it_serves_aggregators_of_its_fleet_alone(made: ThrowAwayFleet, device: DeviceProcess) -> None:
    ours = members(made.keys)
    stranger = TestFleet().aggregator()
    posing = Credentials(stranger.key, stranger.certificate, made.keys.credentials.authority)
    assert (await refusal(device.address, posing)).code.startswith("link")
    _, neighbour = ours.device()
    assert (await refusal(device.address, neighbour)).code == "trust.aggregator"
    expired = ours.aggregator(now=utc_now() - timedelta(days=800))
    assert (await refusal(device.address, expired)).code.startswith("link")
    reader, writer = await asyncio.open_connection(HOST, device.port)
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
    assert (await asyncio.wait_for(reader.read(100), 5))[:1] in (b"", b"\x15"), "nothing but an alert of TLS"
    writer.close()


@pytest.mark.fault
async def test_it_proves_that_it_is_the_device_that_was_meant(
    made: ThrowAwayFleet, device: DeviceProcess
) -> None:
    other, _ = members(made.keys).device()
    assert (await refusal(device.address, made.keys.credentials, other)).code == "trust.impostor"
    assert (await refusal(device.address, TestFleet().aggregator())).code == "trust.impostor"


@pytest.mark.fault
async def test_what_the_owner_did_not_sign_is_not_installed(
    made: ThrowAwayFleet, link: GrpcLink, signed: Bundle, newer: Bundle
) -> None:
    before = (await said(link)).generations
    owner = made.keys.bundle_key
    changed = signed.manifest_bytes.replace(b'"seed": ', b'"seed":  ')
    assert changed != signed.manifest_bytes
    ended = serialise(replace(newer.manifest, expires="2020-01-01T00:00:00Z"))
    stranger = sign_manifest(OTHER_OWNER, newer.manifest_bytes)
    refused = {
        "trust.unsigned": parts(newer, signature=b""),
        "trust.signature": parts(newer, signature=stranger),
        "trust.expired": parts(newer, manifest=ended, signature=sign_manifest(owner, ended)),
    }
    for code, requests in refused.items():
        assert (await install(link, *requests)).code == code
    assert (await install(link, *parts(signed, manifest=changed))).code == "trust.signature"
    assert (await said(link)).generations == before


@pytest.mark.fault
@pytest.mark.usefixtures("signed")
async def test_flatbuffers_that_are_changed_or_cut_short_are_refused_by_their_hash(
    made: ThrowAwayFleet, link: GrpcLink, newer: Bundle
) -> None:
    before = (await said(link)).generations
    owned = made.sign(newer)
    header, whole = parts(owned)
    random = Random(11)
    for number in range(100):
        data = bytearray(whole.chunk)
        if number % 2:
            data[random.randrange(owned.manifest.submodels[0].variants[0].bytes)] ^= 1 << random.randrange(8)
        else:
            del data[random.randrange(len(data)) :]
        chunks = [InstallRequest(chunk=bytes(data))] if data else []
        code = (await install(link, header, *chunks)).code
        assert code == ("device.hash" if number % 2 else "device.interrupted"), number
    assert (await install(link, header, whole, InstallRequest(chunk=b"more"))).code in ("", "device.size")
    assert (await said(link)).generations[0] == before[0]


@pytest.mark.fault
@pytest.mark.usefixtures("signed")
@pytest.mark.parametrize("seed", range(4))
async def test_a_signed_flatbuffer_that_is_broken_inside_never_serves(
    made: ThrowAwayFleet, link: GrpcLink, newer: Bundle, seed: int
) -> None:
    """It may end the process that loads it, which is not the device's own."""
    before = (await said(link)).generations
    path = newer.file(newer.manifest.submodels[0].variants[0].file)
    data = bytearray(path.read_bytes())
    random = Random(seed)
    for _ in range(200):
        data[random.randrange(8, len(data))] = random.randrange(256)
    path.write_bytes(data)
    write_manifest(newer.path, newer.manifest)
    broken = made.sign(open_bundle(newer.path))
    reply = await install(link, *parts(broken))
    assert reply.code == "device.vector", reply
    assert (await said(link)).generations == before


@pytest.mark.fault
async def test_what_comes_after_a_refusal_takes_no_room_for_ever(link: GrpcLink, newer: Bundle) -> None:
    for _ in range(30):  # 1.5 MB; a connection has 64 kB under way at most
        assert (await install(link, *parts(newer, signature=b""))).code == "trust.unsigned"
    assert (await said(link)).protocol == PROTOCOL


@pytest.mark.fault
async def test_only_the_owners_decision_goes_back_to_an_older_version(
    made: ThrowAwayFleet, device: DeviceProcess, link: GrpcLink, signed: Bundle, newer: Bundle
) -> None:
    there = [Announced(device.address, device.id, device.name)]
    owned = made.sign(newer)
    await deploy(owned, there, connect=made.connect)
    assert (await said(link)).bundle_version == owned.manifest.version
    assert (await install(link, *parts(signed))).code == "trust.older"
    digest = hashlib.sha256(signed.manifest_bytes).hexdigest()

    def decision(**fields: object) -> bytes:
        right = Rollback(signed.manifest.name, owned.manifest.version, digest)
        return sign_rollback(made.keys.bundle_key, replace(right, **fields))  # type: ignore[arg-type]

    for wrong in (decision(newest=1), decision(bundle="another"), decision(manifest="0" * 64), b"x" * 80):
        assert (await install(link, *parts(signed, rollback=wrong))).code == "trust.rollback"
    assert (await said(link)).bundle_version == owned.manifest.version
    reply = await install(link, *parts(signed, rollback=decision()))
    assert reply.step == InstallReply.SERVING, reply.reason
    device.kill()
    device.start()
    opened = GrpcLink(device.address, made.keys.credentials, device.id)
    versions = {one.version for one in (await said(opened)).generations}
    await opened.close()
    assert versions == {signed.manifest.version, owned.manifest.version}, "both are there after a restart"


@pytest.mark.fault
async def test_hostile_manifests_are_refused_with_their_codes(made: ThrowAwayFleet, link: GrpcLink) -> None:
    for name in sorted(name for name, code in INDEX.items() if code)[::6]:
        data = (VECTORS / "manifests" / name).read_bytes()
        header = InstallHeader(manifest=data, signature=sign_manifest(made.keys.bundle_key, data))
        assert (await install(link, InstallRequest(header=header))).code == INDEX[name], name


@pytest.mark.fault
async def test_garbage_leaves_it_as_it_was(
    made: ThrowAwayFleet, device: DeviceProcess, link: GrpcLink, tmp_path: Path
) -> None:
    random = Random(5)
    context = tls(ssl.create_default_context(), members(made.keys).aggregator(), tmp_path)
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    for number in range(60):
        data = random.randbytes(random.randrange(1, 2000))
        with contextlib.suppress(OSError), socket.create_connection((HOST, device.port), timeout=5) as plain:
            if number % 3 == 0:
                plain.sendall(data)
                continue
            with context.wrap_socket(plain, server_hostname="device.edvit") as secured:
                secured.sendall((preface if number % 3 == 1 else b"") + data)
                secured.recv(100)
    assert (await said(link)).id == device.id
    assert (await install(link, InstallRequest())).code == "device.stream"


@pytest.mark.fault
async def test_a_flood_of_silent_connections_is_capped_closed_and_hardly_felt(
    device: DeviceProcess, link: GrpcLink
) -> None:
    quiet: list[float] = []
    flooded: list[float] = []
    await timed(link)
    for _ in range(2):
        quiet += [await timed(link) for _ in range(300)]
        command = [sys.executable, "-m", "tests.rpc.silent", str(device.port)]
        flood = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        assert flood.stdout
        open_count = asyncio.create_task(flood.stdout.readline())
        while not open_count.done():
            flooded.append(await timed(link))
        assert 0 < int(open_count.result()) <= MOST_CONNECTIONS
        flooded += [await timed(link) for _ in range(300)]
        assert float(await flood.stdout.readline()) < HANDSHAKE_SECONDS + 5
        quiet += [await timed(link) for _ in range(300)]
        await flood.wait()
    assert (await said(link)).id == device.id
    # Where every core is busy the scheduler alone takes that long now and then.
    assert p99(flooded) <= max(2 * p99(quiet), 0.01), (p99(flooded), p99(quiet))


@pytest.mark.fault
async def test_a_slow_loris_is_closed_in_fifteen_seconds(device: DeviceProcess) -> None:
    await slow_loris(device.port, 200, longest=15)


async def test_a_renewed_certificate_is_used_without_a_dropped_call(
    made: ThrowAwayFleet, device: DeviceProcess, link: GrpcLink
) -> None:
    shown = await link.certificate(timeout=5)
    key = key_of(x509.load_der_x509_certificate(shown))
    earlier = issue_for_device(made.keys.authority, key, utc_now(), timedelta(days=30))
    with pytest.raises(EdvitError) as caught:
        await link.certificate(earlier.public_bytes(Encoding.DER), timeout=5)
    assert caught.value.code == "trust.certificate"
    later = issue_for_device(made.keys.authority, key, utc_now(), timedelta(days=500))
    der = later.public_bytes(Encoding.DER)
    assert await link.certificate(der, timeout=5) == der
    assert (await said(link)).id == device.id
    fresh = GrpcLink(device.address, made.keys.credentials, device.id)
    assert await fresh.certificate(timeout=5) == der
    await fresh.close()


@pytest.mark.usefixtures("signed")
async def test_its_log_is_given_to_the_aggregator_without_secrets(
    link: GrpcLink, device: DeviceProcess
) -> None:
    lines = [json.loads(line) async for line in link.journal(1000, follow=False, timeout=5)]
    assert any("serving submodel-0" in line["message"] or "refused" in line["message"] for line in lines)
    assert all(set(line) == {"time", "level", "logger", "message"} for line in lines)
    assert "edvit1-" not in device.log()


async def test_its_instance_is_of_one_start(
    made: ThrowAwayFleet, device: DeviceProcess, link: GrpcLink
) -> None:
    first = (await said(link)).instance
    assert len(first) == 16
    assert device.stop() == 0
    device.start()
    again = GrpcLink(device.address, made.keys.credentials, device.id)
    assert (await said(again)).instance != first
    await again.close()


async def test_ten_thousand_pictures_leave_nothing_behind(
    made: ThrowAwayFleet, device: DeviceProcess, signed: Bundle
) -> None:
    link = GrpcLink(device.address, made.keys.credentials, device.id)
    held = (await said(link)).generations[0]
    asked = replace(signed, manifest=replace(signed.manifest, version=held.version))
    request = question(asked, picture(signed), held.holdings[0].submodel)

    async def ask(number: int) -> int:
        for _ in range(number // 20):
            await asyncio.gather(*(link.infer(request, timeout=30) for _ in range(20)))
        return jvm.pss(device.pid)

    await ask(3_000)
    before = await ask(2_000)
    after = await ask(10_000)
    await link.close()
    assert after < 1.1 * before, (before, after)


@pytest.mark.fault
async def test_ten_wrong_codes_close_pairing_and_the_right_one_opens_it(tmp_path: Path) -> None:
    keys = make_keys(tmp_path / "fleet")

    async def pair(code: str, waiting: dict[str, str]) -> str:
        link = PairingLink(f"{waiting['address']}:{waiting['port']}")
        return (await enrol(link.pair, keys, lambda _: read_code(code))).id

    device = DeviceProcess("wren", tmp_path, program=jvm.program())
    try:
        device.begin()
        waiting = device.said()["waiting"]
        for _ in range(WRONG_CODES):
            with pytest.raises(TrustError, match="code is wrong"):
                await pair(new_code(), waiting)
        with pytest.raises(TrustError, match="closed"):
            await pair(waiting["code"], waiting)
        assert device.stop() == 0
        device.begin()
        waiting = device.said()["waiting"]
        with socket.create_connection((waiting["address"], waiting["port"])) as stranger:
            stranger.sendall(Random(3).randbytes(500))
        assert await pair(waiting["code"], waiting) == waiting["id"]
        device.wait_ready()
        assert waiting["code"] not in device.log()
    finally:
        device.end()


def test_a_second_process_on_a_store_is_refused(device: DeviceProcess) -> None:
    run = [*jvm.program().command, "run", "--json", *jvm.program().options, "--store", str(device.store)]
    done = subprocess.run([*run, "--port", "0"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["code"] == "device.store_in_use"
