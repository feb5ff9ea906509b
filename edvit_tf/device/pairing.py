"""The device's side of becoming a member: one conversation, in which the aggregator proves itself first."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from google.protobuf.message import DecodeError

from edvit_tf.device.identity import Identity
from edvit_tf.device.membership import Membership
from edvit_tf.errors import EdvitError, TrustError
from edvit_tf.rpc.certificates import check_issued, fingerprint, parse_certificate, utc_now
from edvit_tf.rpc.edvit_pb2 import PairChallenge, PairOffer, PairReply, PairRequest
from edvit_tf.rpc.link import PROTOCOL, check_protocol
from edvit_tf.rpc.pairing import NONCE_BYTES, WRONG_CODES, Token, proof, same, stretch

ANSWER_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class About:
    """What a device that is of no fleet yet says of itself."""

    name: str
    runtime: str = ""
    kind: str = ""
    memory_bytes: int = 0
    cores: int = 0


class PairingService:
    """Waits for an aggregator that knows the device's code, or the token it was given.

    `on_member` is called once, with what to write down; `secret` is a code's letters or a token's secret.
    """

    def __init__(
        self,
        identity: Identity,
        about: About,
        secret: bytes,
        on_member: Callable[[Membership], None],
        *,
        token: Token | None = None,
    ) -> None:
        self._identity = identity
        self._about = about
        self._key = stretch(secret, identity.id)
        self._on_member = on_member
        self._token = token
        self._wrong = 0
        self._done = False

    async def pair(self, requests: AsyncIterable[PairRequest]) -> AsyncGenerator[PairReply, None]:
        """Hold one conversation; a refusal is its last reply, and changes nothing."""
        try:
            async for reply in self._converse(aiter(requests)):
                yield reply
        except EdvitError as error:
            yield PairReply(refused=error.message)

    async def _converse(self, requests: AsyncIterator[PairRequest]) -> AsyncGenerator[PairReply, None]:
        self._check_open()
        offer_bytes = await _part(requests, "offer")
        offer = _offer(offer_bytes)
        authority = parse_certificate(offer.authority)
        if self._token is not None and fingerprint(authority) != self._token.fingerprint:
            raise TrustError("this device was given a token of another fleet", code="trust.token")
        challenge = self._challenge()
        yield PairReply(challenge=challenge)
        theirs = await _part(requests, "proof")
        self._check_open()
        if not same(theirs, proof(self._key, "aggregator", offer_bytes, challenge)):
            self._wrong += 1
            raise TrustError("the code is wrong", code="trust.code")
        yield PairReply(proof=proof(self._key, "device", offer_bytes, challenge))
        certificate = parse_certificate(await _part(requests, "certificate"))
        check_issued(certificate, authority, self._identity.id, utc_now())
        self._check_open()
        self._on_member(Membership(authority, certificate, offer.bundle_key))
        self._done = True
        yield PairReply(done=True)

    def _check_open(self) -> None:
        if self._done:
            raise TrustError("this device has joined a fleet already", code="trust.closed")
        if self._wrong >= WRONG_CODES:
            raise TrustError(
                f"pairing is closed after {WRONG_CODES} wrong codes: start the device again for a new one",
                code="trust.closed",
            )

    def _challenge(self) -> bytes:
        about = self._about
        public = self._identity.key.public_key()
        return PairChallenge(
            protocol=PROTOCOL,
            nonce=secrets.token_bytes(NONCE_BYTES),
            public_key=public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
            name=about.name,
            token_id=self._token.id if self._token else "",
            runtime=about.runtime,
            kind=about.kind,
            memory_bytes=about.memory_bytes,
            cores=about.cores,
        ).SerializeToString()


def _offer(data: bytes) -> PairOffer:
    try:
        offer = PairOffer.FromString(data)
        Ed25519PublicKey.from_public_bytes(offer.bundle_key)
    except (DecodeError, ValueError) as error:
        raise TrustError("what came is no offer", code="trust.offer") from error
    check_protocol(offer.protocol, "the aggregator")
    if len(offer.nonce) != NONCE_BYTES:
        raise TrustError("what came is no offer", code="trust.offer")
    return offer


async def _part(requests: AsyncIterator[PairRequest], wanted: str) -> bytes:
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            request = await anext(requests)
    except StopAsyncIteration:
        raise TrustError("the conversation ended early", code="trust.offer") from None
    except TimeoutError:
        raise TrustError(f"nothing came for {ANSWER_SECONDS:.0f} s", code="trust.offer") from None
    if request.WhichOneof("part") != wanted:
        raise TrustError(f"the {wanted} belongs here", code="trust.offer")
    data: bytes = getattr(request, wanted)
    return data
