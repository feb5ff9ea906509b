"""What makes a stranger a member: a code or a token that both sides know, and proofs that they do.

The secret never crosses the wire. Each side proves that it knows it by an HMAC over everything that was said,
the authority's certificate and the device's key among it, so that whoever sits in between can change nothing.
The aggregator proves first: a device gives a stranger nothing to guess at.

A code (Adopt) has 60 random bits and is stretched by scrypt; a token (Join) has 128 and carries the SHA-256
of the authority's certificate, which the device holds against what it is offered before it says anything.
"""

import base64
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass

from edvit_tf.errors import TrustError

# Crockford's base 32: no I, L, O or U.
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_LOOKALIKES = str.maketrans("OIL", "011")
CODE_LENGTH = 12
NONCE_BYTES = 32
TOKEN_PREFIX = "edvit1-"  # noqa: S105
_TOKEN_ID_BYTES, _SECRET_BYTES, _FINGERPRINT_BYTES = 6, 16, 32
_TOKEN = re.compile(rf"{TOKEN_PREFIX}([A-Za-z0-9_-]{{72}})")
# Scrypt: 16 MiB of memory a guess.
_COST, _BLOCK, _PARALLEL = 1 << 14, 8, 1
WRONG_CODES = 10


@dataclass(frozen=True, slots=True)
class Token:
    """A join token: `id` names it, `secret` (16 bytes) proves it, `fingerprint` is the authority's."""

    id: str
    secret: bytes
    fingerprint: bytes

    def __str__(self) -> str:
        """The token as one word."""
        packed = bytes.fromhex(self.id) + self.secret + self.fingerprint
        return TOKEN_PREFIX + base64.urlsafe_b64encode(packed).decode()


def new_code() -> str:
    """Draw a pairing code, "ABCD-EFGH-JKMN"."""
    letters = [secrets.choice(_ALPHABET) for _ in range(CODE_LENGTH)]
    return "-".join("".join(letters[start : start + 4]) for start in range(0, CODE_LENGTH, 4))


def read_code(text: str) -> bytes:
    """The secret in a code as a person types it: case, spaces and hyphens do not count, nor O for 0.

    Raises:
        TrustError: `trust.code`: it is no pairing code.
    """
    letters = re.sub(r"[\s-]", "", text.upper()).translate(_LOOKALIKES)
    if len(letters) != CODE_LENGTH or not set(letters) <= set(_ALPHABET):
        raise TrustError(
            "a pairing code is twelve letters and digits, like 7K2M-Q4ZD-9HXA, as the device shows it",
            code="trust.code",
        )
    return letters.encode()


def new_token(fingerprint: bytes) -> Token:
    """Draw a join token for the authority with this fingerprint."""
    return Token(secrets.token_hex(_TOKEN_ID_BYTES), secrets.token_bytes(_SECRET_BYTES), fingerprint)


def read_token(text: str) -> Token:
    """Read a token from its word.

    Raises:
        TrustError: `trust.token`: it is none.
    """
    match = _TOKEN.fullmatch(text.strip())
    if match is None:
        raise TrustError(
            f"a join token is one word that begins with {TOKEN_PREFIX}, as `edvit-tf fleet token` prints it",
            code="trust.token",
        )
    packed = base64.urlsafe_b64decode(match.group(1))
    head = _TOKEN_ID_BYTES + _SECRET_BYTES
    return Token(packed[:_TOKEN_ID_BYTES].hex(), packed[_TOKEN_ID_BYTES:head], packed[head:])


def stretch(secret: bytes, device_id: str) -> bytes:
    """The key (32 bytes) that a code or token gives with one device: scrypt (RFC 7914), N 2^14, r 8, p 1."""
    salt = b"edvit-tf pairing 1 " + device_id.encode()
    return hashlib.scrypt(secret, salt=salt, n=_COST, r=_BLOCK, p=_PARALLEL, dklen=32)


def proof(key: bytes, who: str, offer: bytes, challenge: bytes) -> bytes:
    """HMAC-SHA256 (32 bytes) by `who` ("aggregator" or "device") over what was said, as it was sent."""
    parts = (who.encode(), offer, challenge)
    said = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return hmac.digest(key, said, "sha256")


def same(one: bytes, other: bytes) -> bool:
    """Whether two proofs are equal, in a time that tells nothing."""
    return hmac.compare_digest(one, other)
