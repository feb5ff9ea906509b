"""Becoming a member: the right secret and nothing else, whatever a stranger says."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from edvit_tf.device.identity import Identity
from edvit_tf.device.membership import (
    MEMBERSHIP_FILE,
    Membership,
    leave_fleet,
    load_membership,
    save_membership,
)
from edvit_tf.device.pairing import About, PairingService
from edvit_tf.device.store import Store
from edvit_tf.errors import TrustError
from edvit_tf.fleet.enrol import enrol
from edvit_tf.fleet.keys import FleetKeys, make_keys
from edvit_tf.rpc.certificates import check_issued, fingerprint, id_of, parse_certificate, utc_now
from edvit_tf.rpc.edvit_pb2 import PairReply, PairRequest
from edvit_tf.rpc.pairing import WRONG_CODES, Token, new_token, read_code
from edvit_tf.rpc.pairing_channel import PairingLink, serve_pairing

CODE = read_code("7K2M-Q4ZD-9HXA")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> FleetKeys:
    return make_keys(tmp_path_factory.mktemp("fleet"))


def identity() -> Identity:
    key = ec.generate_private_key(ec.SECP256R1())
    return Identity(id_of(key.public_key()), key)


class Waiting:
    """A device that waits to be paired."""

    def __init__(self, secret: bytes = CODE, token: Token | None = None) -> None:
        self.identity = identity()
        self.members: list[Membership] = []
        about = About("kitchen\x1b[31m", memory_bytes=10**9, cores=4)
        self.service = PairingService(self.identity, about, secret, self.members.append, token=token)


def code(token_id: str) -> bytes:
    assert token_id == ""
    return CODE


async def test_the_right_code_makes_a_member_over_a_real_port(keys: FleetKeys, store: Store) -> None:
    device = Waiting()
    server = await serve_pairing(device.service.pair, "127.0.0.1")
    enrolled = await enrol(PairingLink(f"127.0.0.1:{server.port}").pair, keys, code)
    await server.stop(0)
    assert (enrolled.id, enrolled.token_id) == (device.identity.id, "")
    assert enrolled.name == "kitchen[31m", "no terminal code is left"
    (membership,) = device.members
    assert membership.authority == keys.authority.certificate
    check_issued(membership.certificate, membership.authority, device.identity.id, utc_now())
    assert load_membership(store) is None
    save_membership(store, membership)
    assert load_membership(store) == membership
    assert leave_fleet(store)
    assert not leave_fleet(store)
    assert load_membership(store) is None
    with pytest.raises(TrustError, match="joined a fleet already"):
        await enrol(device.service.pair, keys, code)


async def test_ten_wrong_codes_close_pairing(keys: FleetKeys) -> None:
    device = Waiting()
    for _ in range(WRONG_CODES):
        with pytest.raises(TrustError, match="code is wrong"):
            await enrol(device.service.pair, keys, lambda _: b"wrong")
    with pytest.raises(TrustError, match="closed after 10 wrong codes"):
        await enrol(device.service.pair, keys, code)
    assert not device.members


async def test_wrong_codes_at_the_same_time_are_all_counted(keys: FleetKeys) -> None:
    device = Waiting()
    tries = [enrol(device.service.pair, keys, lambda _: b"wrong") for _ in range(3 * WRONG_CODES)]
    results = await asyncio.gather(*tries, return_exceptions=True)
    wrong = [result for result in results if "code is wrong" in str(result)]
    assert len(wrong) == WRONG_CODES


async def test_a_token_is_for_one_fleet_alone(keys: FleetKeys, tmp_path: Path) -> None:
    token = new_token(fingerprint(keys.authority.certificate))
    device = Waiting(token.secret, token)
    other = make_keys(tmp_path)
    with pytest.raises(TrustError, match="token of another fleet"):
        await enrol(device.service.pair, other, lambda _: token.secret)
    assert not device.members

    def secret_for(token_id: str) -> bytes:
        assert token_id == token.id
        return token.secret

    enrolled = await enrol(device.service.pair, keys, secret_for)
    assert enrolled.token_id == token.id
    assert len(device.members) == 1


async def test_an_impostor_that_does_not_know_the_code_gets_no_certificate(keys: FleetKeys) -> None:
    device = Waiting()
    said: list[str] = []

    async def impostor(requests: AsyncIterator[PairRequest]) -> AsyncIterator[PairReply]:
        async def heard() -> AsyncIterator[PairRequest]:
            async for request in requests:
                said.append(str(request.WhichOneof("part")))
                yield request

        async for reply in device.service.pair(heard()):
            if reply.WhichOneof("part") == "challenge":
                yield reply
                break
        await anext(requests)
        yield PairReply(proof=b"\0" * 32)
        said.append(str((await anext(requests)).WhichOneof("part")))

    with pytest.raises(TrustError, match="does not know the code"):
        await enrol(impostor, keys, code)  # type: ignore[arg-type]
    assert "certificate" not in said


Change = Callable[[PairReply | PairRequest], None]


@pytest.mark.parametrize("part", ["offer", "challenge", "proof", "certificate"])
async def test_whoever_sits_in_between_can_change_nothing(keys: FleetKeys, part: str) -> None:
    device = Waiting()

    def spoil(message: PairReply | PairRequest) -> None:
        if message.WhichOneof("part") == part:
            data = bytearray(getattr(message, part))
            data[-1] ^= 1
            setattr(message, part, bytes(data))

    async def between(requests: AsyncIterator[PairRequest]) -> AsyncIterator[PairReply]:
        async def sent() -> AsyncIterator[PairRequest]:
            async for request in requests:
                spoil(request)
                yield request

        async for reply in device.service.pair(sent()):
            spoil(reply)
            yield reply

    with pytest.raises(TrustError):
        await enrol(between, keys, code)  # type: ignore[arg-type]
    assert not device.members


@pytest.mark.parametrize("curve", [b"\x2a\x86\x48\xce\x3d\x02\x02", b"\x2a\x86\x48\xce\x3d\x0b\x01"])
async def test_a_key_on_no_curve_that_we_know_is_a_refusal(keys: FleetKeys, curve: bytes) -> None:
    """Found by the fuzzer: the library has exceptions of its own for these."""
    known = b"\x2a\x86\x48\xce\x3d\x02\x01"  # an elliptic curve's public key
    device = Waiting()

    async def other_device(requests: AsyncIterator[PairRequest]) -> AsyncIterator[PairReply]:
        async for reply in device.service.pair(requests):
            yield PairReply(challenge=reply.challenge.replace(known, curve))

    with pytest.raises(TrustError, match="does not speak"):
        await enrol(other_device, keys, code)  # type: ignore[arg-type]

    async def other_authority(requests: AsyncIterator[PairRequest]) -> AsyncIterator[PairReply]:
        async def changed() -> AsyncIterator[PairRequest]:
            async for request in requests:
                yield PairRequest(offer=request.offer.replace(known, curve))

        async for reply in device.service.pair(changed()):
            yield reply

    with pytest.raises(TrustError, match="not for a P-256 key"):
        await enrol(other_authority, keys, code)  # type: ignore[arg-type]


@pytest.mark.parametrize("change", ["version", "serial number"])
def test_a_certificate_that_the_library_only_warns_of_is_a_refusal(keys: FleetKeys, change: str) -> None:
    """Found by the fuzzer as well."""
    der = keys.authority.certificate.public_bytes(Encoding.DER)
    third = b"\xa0\x03\x02\x01\x02"  # the version, 3; the serial number follows: 02, its length, its bytes
    where = der.index(third) + (len(third) - 1 if change == "version" else len(third) + 2)
    changed = bytearray(der)
    changed[where] = 10 if change == "version" else 0x80
    with pytest.raises(TrustError, match="is no certificate"):
        parse_certificate(bytes(changed))


async def test_another_device_than_was_meant_is_left_alone(keys: FleetKeys) -> None:
    device = Waiting()
    with pytest.raises(TrustError, match="not ffffffffffff"):
        await enrol(device.service.pair, keys, code, expected_id="f" * 64)


MESSAGES = st.lists(
    st.one_of(
        st.binary(max_size=200).map(lambda data: PairRequest(offer=data)),
        st.binary(max_size=64).map(lambda data: PairRequest(proof=data)),
        st.binary(max_size=200).map(lambda data: PairRequest(certificate=data)),
        st.just(PairRequest()),
    ),
    max_size=4,
)
REPLIES = st.lists(
    st.one_of(
        st.binary(max_size=200).map(lambda data: PairReply(challenge=data)),
        st.binary(max_size=64).map(lambda data: PairReply(proof=data)),
        st.text(max_size=400).map(lambda text: PairReply(refused=text)),
        st.just(PairReply(done=True)),
        st.just(PairReply()),
    ),
    max_size=4,
)
FUZZED = Waiting()


@settings(max_examples=2500)
@given(messages=MESSAGES)
def test_nothing_a_stranger_says_hurts_a_device(messages: list[PairRequest]) -> None:
    async def stream() -> AsyncIterator[PairRequest]:
        for message in messages:
            yield message

    async def story() -> list[PairReply]:
        return [reply async for reply in FUZZED.service.pair(stream())]

    replies = asyncio.run(story())
    assert replies[-1].WhichOneof("part") == "refused"
    assert not FUZZED.members


@settings(max_examples=2500)
@given(replies=REPLIES)
def test_nothing_a_stranger_answers_hurts_an_aggregator(keys: FleetKeys, replies: list[PairReply]) -> None:
    async def pair(requests: AsyncIterator[PairRequest]) -> AsyncIterator[PairReply]:
        del requests
        for reply in replies:
            yield reply

    with pytest.raises(TrustError) as caught:
        asyncio.run(enrol(pair, keys, code))  # type: ignore[arg-type]
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 400


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"authority": 3}', b'{"authority": "AAAA"}'])
def test_a_broken_membership_is_one_sentence(store: Store, data: bytes) -> None:
    store.write(MEMBERSHIP_FILE, data)
    with pytest.raises(TrustError, match="delete it") as caught:
        load_membership(store)
    assert caught.value.code == "trust.membership"
