"""The aggregator's side of making a device a member of the fleet."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from google.protobuf.message import DecodeError

from edvit_tf.errors import TrustError
from edvit_tf.fleet.keys import FleetKeys
from edvit_tf.rpc.certificates import id_of, issue_for_device, utc_now
from edvit_tf.rpc.edvit_pb2 import PairChallenge, PairOffer, PairReply, PairRequest
from edvit_tf.rpc.link import PROTOCOL, check_protocol
from edvit_tf.rpc.pairing import NONCE_BYTES, proof, same, stretch
from edvit_tf.rpc.text import clean_text

Pair = Callable[[AsyncIterator[PairRequest]], AsyncGenerator[PairReply, None]]
SecretFor = Callable[[str], bytes]


@dataclass(frozen=True, slots=True)
class Enrolled:
    """A new member; `token_id` is the join token it had, empty when it was adopted by its code."""

    id: str
    name: str
    token_id: str


async def enrol(
    pair: Pair,
    keys: FleetKeys,
    secret_for: SecretFor,
    *,
    expected_id: str = "",
    on_proved: Callable[[str], None] = lambda _: None,
) -> Enrolled:
    """Hold one conversation with a device, and make it a member when both sides have proved themselves.

    Args:
        pair: opens the conversation (`Pair` of a `PairingLink`, or a `PairingService` in this process).
        keys: the fleet's.
        secret_for: gives the secret for a token's id; "" asks for the device's code. Raises TrustError.
        expected_id: the device that is meant, empty for any that knows the secret.
        on_proved: called with the token's id before the certificate is issued; what it raises prevents that.

    Raises:
        TrustError: the device refused, is another one, or did not prove that it knows the secret.
    """
    offer = PairOffer(
        protocol=PROTOCOL,
        nonce=secrets.token_bytes(NONCE_BYTES),
        authority=keys.authority.certificate.public_bytes(Encoding.DER),
        bundle_key=keys.bundle_key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw),
    ).SerializeToString()
    sending = _Sending()
    async with aclosing(pair(sending.stream())) as replies:
        sending.put(PairRequest(offer=offer))
        challenge_bytes = await _part(replies, "challenge")
        challenge, key = _read(challenge_bytes)
        device_id = id_of(key)
        if expected_id and device_id != expected_id:
            raise TrustError(
                f"the device there is {device_id[:12]}, not {expected_id[:12]}", code="trust.impostor"
            )
        # It takes a moment on purpose, and whoever runs for long has others to answer meanwhile.
        shared = await asyncio.to_thread(stretch, secret_for(challenge.token_id), device_id)
        sending.put(PairRequest(proof=proof(shared, "aggregator", offer, challenge_bytes)))
        theirs = await _part(replies, "proof")
        if not same(theirs, proof(shared, "device", offer, challenge_bytes)):
            raise TrustError("what answers there does not know the code", code="trust.impostor")
        on_proved(challenge.token_id)
        certificate = issue_for_device(keys.authority, key, utc_now())
        sending.put(PairRequest(certificate=certificate.public_bytes(Encoding.DER)))
        await _part(replies, "done")
    return Enrolled(device_id, clean_text(challenge.name), challenge.token_id)


class _Sending:
    """What this side says, one message after each answer."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[PairRequest] = asyncio.Queue()

    def put(self, request: PairRequest) -> None:
        self._queue.put_nowait(request)

    async def stream(self) -> AsyncIterator[PairRequest]:
        while True:
            yield await self._queue.get()


async def _part(replies: AsyncGenerator[PairReply, None], wanted: str) -> bytes:
    reply = await anext(replies, PairReply())
    part = reply.WhichOneof("part")
    if part == "refused":
        reason = clean_text(reply.refused, longest=300)
        raise TrustError(f"the device refused: {reason}", code="trust.refused")
    if part != wanted:
        raise TrustError("what answers there does not speak the pairing protocol", code="trust.impostor")
    value = getattr(reply, wanted)
    return value if isinstance(value, bytes) else b""


def _read(data: bytes) -> tuple[PairChallenge, ec.EllipticCurvePublicKey]:
    wrong = TrustError("what answers there does not speak the pairing protocol", code="trust.impostor")
    try:
        challenge = PairChallenge.FromString(data)
        key = load_der_public_key(challenge.public_key[:1024])
    except (DecodeError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise wrong from error
    check_protocol(challenge.protocol, "the device")
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise wrong
    if len(challenge.nonce) != NONCE_BYTES:
        raise wrong
    return challenge, key
