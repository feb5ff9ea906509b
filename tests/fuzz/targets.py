"""What strangers can say to a device or an aggregator, each with inputs that are right to begin with."""

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc.aio
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from google.protobuf.message import DecodeError
from zeroconf.asyncio import AsyncServiceInfo

from edvit_tf.bundle.codec import parse, serialise
from edvit_tf.device.advertise import SERVICE_TYPE, service_info
from edvit_tf.device.identity import Identity
from edvit_tf.device.membership import Membership
from edvit_tf.device.pairing import About, PairingService
from edvit_tf.device.service import Facts
from edvit_tf.errors import DeviceError, LinkError, ProtocolError, TrustError
from edvit_tf.fleet.discover import cleaned
from edvit_tf.fleet.enrol import enrol
from edvit_tf.fleet.keys import FleetKeys, make_keys
from edvit_tf.rpc.certificates import (
    check_issued,
    id_of,
    issue_for_device,
    new_authority,
    parse_certificate,
    utc_now,
)
from edvit_tf.rpc.codecs import EXACT, JPEG, WEBP, Coding, decode, encode
from edvit_tf.rpc.edvit_pb2 import (
    Frame,
    HelloReply,
    HelloRequest,
    Outcome,
    PairReply,
    PairRequest,
    Picture,
)
from edvit_tf.rpc.link import PROTOCOL
from edvit_tf.rpc.pairing import read_code, stretch
from edvit_tf.rpc.tunnel import Tunnel
from edvit_tf.rpc.tunnelled import TunnelledLink
from tests.conftest import GOLDEN
from tests.fuzz.mutate import Target

CODE = read_code("7K2M-Q4ZD-9HXA")
# A conversation is a few messages, each after four bytes that say how long it is.
_LENGTH_BYTES = 4


@dataclass(frozen=True, slots=True)
class Fuzzed:
    """A target, what its inputs are made from, and what ends it."""

    target: Target
    corpus: Sequence[bytes]
    close: Callable[[], None] = lambda: None


def manifest_reader() -> Fuzzed:
    """`manifest.json`: refused, or read so that it can be written and read again."""

    def read(data: bytes) -> None:
        manifest = parse(data)
        assert parse(serialise(manifest)) == manifest

    return Fuzzed(read, [path.read_bytes() for path in sorted(GOLDEN.parent.glob("**/manifest*.json"))])


def discovery_records() -> Fuzzed:
    """The TXT record of an announcement, as zeroconf reads it and as it is cleaned then."""
    facts = Facts("ab" * 32, "Küche 1", "ai-edge-litert/2.3.0", 10**9)
    corpus = [service_info(facts, ["192.0.2.7"], 7434, pair=pair).text for pair in (0, 7435)]

    def read(data: bytes) -> None:
        info = AsyncServiceInfo(
            SERVICE_TYPE, f"x.{SERVICE_TYPE}", port=7434, parsed_addresses=["192.0.2.7"], properties=data
        )
        device = cleaned(info.decoded_properties, info.parsed_addresses(), info.port)
        if device is None:
            raise LinkError("no device")
        for text in (device.name, device.software, device.runtime):
            assert len(text) <= 64
            assert text.isprintable()
        assert 0 <= device.protocol < 100_000

    return Fuzzed(read, corpus)


def pairing_requests(folder: Path, patch: pytest.MonkeyPatch) -> Fuzzed:
    """What an aggregator says to a device that waits: whatever it is, nobody becomes a member who may not."""
    pairing = _Pairing(folder, patch)
    real = [request.SerializeToString() for request in pairing.recorded()[0]]

    def converse(data: bytes) -> None:
        members: list[Membership] = []
        service = pairing.service(members)

        async def stream() -> AsyncIterator[PairRequest]:
            for message in _split(data):
                try:
                    request = PairRequest.FromString(message)
                except DecodeError:
                    return  # gRPC ends the call
                yield request

        async def story() -> list[PairReply]:
            return [reply async for reply in service.pair(stream())]

        last = asyncio.run(story())[-1]
        assert last.WhichOneof("part") == "refused"
        assert not members
        raise TrustError(last.refused)

    return Fuzzed(converse, [_joined(real), _joined(real[:1]), _joined(real[:2]), _joined(real[::-1])])


def pairing_replies(folder: Path, patch: pytest.MonkeyPatch) -> Fuzzed:
    """What something that poses as a device answers: it is refused before it gets a certificate."""
    pairing = _Pairing(folder, patch)
    real = [reply.SerializeToString() for reply in pairing.recorded()[1]]

    def converse(data: bytes) -> None:
        said: list[str | None] = []

        async def pair(requests: AsyncIterator[PairRequest]) -> AsyncIterator[PairReply]:
            for message in _split(data):
                said.append((await anext(requests)).WhichOneof("part"))
                try:
                    reply = PairReply.FromString(message)
                except DecodeError as error:
                    raise LinkError("gRPC ends the call") from error
                yield reply

        try:
            asyncio.run(enrol(pair, pairing.keys, lambda _: CODE))  # type: ignore[arg-type]
        finally:
            assert "certificate" not in said

    return Fuzzed(converse, [_joined(real), _joined(real[:1]), _joined(real[:2]), _joined(real[::-1])])


def certificates() -> Fuzzed:
    """A certificate as a device takes it: it is from its fleet and for its key, or it is refused."""
    authority = new_authority(utc_now())
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    right = issue_for_device(authority, key, utc_now())

    def take(data: bytes) -> None:
        certificate = parse_certificate(data)
        check_issued(certificate, authority.certificate, id_of(key), utc_now())
        assert certificate.tbs_certificate_bytes == right.tbs_certificate_bytes

    return Fuzzed(take, [each.public_bytes(Encoding.DER) for each in (right, authority.certificate)])


def wire_pictures() -> Fuzzed:
    """The picture in a request to a device: refused, or decoded to the shape that the sub-model takes."""
    codings = (EXACT, Coding(JPEG, 95), Coding(JPEG, 40), Coding(WEBP), Coding(WEBP, 80))
    corpus: list[bytes] = []
    for channels in (1, 3):
        rows, columns = np.mgrid[:40, :48]
        plane = 128 + 60 * np.sin(rows / 9) + 60 * np.cos(columns / 7)
        image = np.repeat(plane[:, :, np.newaxis], channels, axis=2).astype(np.uint8)
        corpus += [encode(image, coding).SerializeToString() for coding in codings]

    def take(data: bytes) -> None:
        try:
            picture = Picture.FromString(data)
        except DecodeError as error:
            raise DeviceError("gRPC ends the call") from error
        shape = (40, 48, 1 if picture.channels == 1 else 3)
        decoded = decode(picture, shape)
        assert decoded.shape == shape
        assert decoded.dtype == np.uint8

    return Fuzzed(take, corpus)


def frames_of_a_device() -> Fuzzed:
    """What a device sends over the connection that it opened, when it is asked for its hello."""
    peer = "ab" * 32
    reply = HelloReply(protocol=PROTOCOL, id=peer, name="kitchen", instance=b"x" * 16)
    right = [
        Frame(call=1, message=reply.SerializeToString()),
        Frame(call=1, last=True),
        Frame(call=1, outcome=Outcome(status="OK")),
    ]
    others = [
        Frame(call=1, taken=1),
        Frame(call=1, outcome=Outcome(status="FAILED_PRECONDITION", details="no", code="device.busy")),
        Frame(call=2, method="/edvit.v1.Device/Hello"),
        Frame(call=1, cancelled=True),
    ]
    corpus = [
        _joined([frame.SerializeToString() for frame in frames])
        for frames in (right, right[::-1], [others[0], *right], others[1:2], others[2:])
    ]

    def ask(data: bytes) -> None:
        async def story() -> HelloReply:
            tunnel = Tunnel(_Frames(data), peer=peer)
            link = TunnelledLink("dialled", tunnel)
            asking = asyncio.create_task(link.hello(HelloRequest(), timeout=5))
            await asyncio.sleep(0)
            with contextlib.suppress(ProtocolError, LinkError):
                await tunnel.run()
            try:
                return await asking
            finally:
                assert asyncio.all_tasks() == {asyncio.current_task()}

        assert asyncio.run(story()).id == peer

    return Fuzzed(ask, corpus)


class _Frames:
    """A stream that gives what is in an input."""

    def __init__(self, data: bytes) -> None:
        self._messages = _split(data)

    async def read(self) -> object:
        await asyncio.sleep(0)
        if not self._messages:
            return grpc.aio.EOF
        try:
            return Frame.FromString(self._messages.pop(0))
        except DecodeError as error:
            raise LinkError("gRPC ends the stream") from error

    async def write(self, frame: Frame) -> None:
        del frame


class _Pairing:
    """A fleet and a device, whose secret is stretched once and not for each conversation."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        once: Callable[[bytes, str], bytes] = functools.cache(stretch)
        for module in ("edvit_tf.device.pairing", "edvit_tf.fleet.enrol"):
            patch.setattr(f"{module}.stretch", once)
        self.keys: FleetKeys = make_keys(folder)
        self._identity: Identity = _identity()

    def service(self, members: list[Membership]) -> PairingService:
        return PairingService(self._identity, About("kitchen"), CODE, members.append)

    def recorded(self) -> tuple[list[PairRequest], list[PairReply]]:
        """A conversation that makes a member."""
        requests: list[PairRequest] = []
        replies: list[PairReply] = []
        service = self.service([])

        async def pair(sent: AsyncIterator[PairRequest]) -> AsyncIterator[PairReply]:
            async def heard() -> AsyncIterator[PairRequest]:
                async for request in sent:
                    requests.append(request)
                    yield request

            async for reply in service.pair(heard()):
                replies.append(reply)
                yield reply

        asyncio.run(enrol(pair, self.keys, lambda _: CODE))  # type: ignore[arg-type]
        return requests, replies


def _identity() -> Identity:
    key = ec.generate_private_key(ec.SECP256R1())
    return Identity(id_of(key.public_key()), key)


def _joined(messages: Sequence[bytes]) -> bytes:
    return b"".join(len(message).to_bytes(_LENGTH_BYTES, "big") + message for message in messages)


def _split(data: bytes) -> list[bytes]:
    """The messages in an input; a length that is wrong takes what there is."""
    messages = []
    while data:
        end = _LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES], "big") % 4096
        messages.append(data[_LENGTH_BYTES:end])
        data = data[end:]
    return messages[:8]
