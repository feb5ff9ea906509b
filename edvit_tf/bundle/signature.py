"""What the fleet's owner signs: a bundle's manifest, and the decision to go back to an older one.

`manifest.sig` is Ed25519 (64 bytes) over the exact bytes of `manifest.json`. A rollback decision is a small
JSON document with its own signature; the prefix keeps one kind of document from passing as the other.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from edvit_tf.bundle.manifest import Manifest
from edvit_tf.errors import TrustError

SIGNATURE_BYTES = 64
LARGEST_DECISION_BYTES = 4096
_ROLLBACK = b"edvit-tf rollback 1\n"


@dataclass(frozen=True, slots=True)
class Rollback:
    """The decision that the manifest with the hash `manifest` may replace versions up to `newest`."""

    bundle: str
    newest: int
    manifest: str


def key_id(key: Ed25519PublicKey) -> str:
    """The lower-case hex SHA-256 (64 characters) of the key's 32 raw bytes."""
    return hashlib.sha256(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()


def sign_manifest(key: Ed25519PrivateKey, manifest: bytes) -> bytes:
    """Sign the exact bytes of a `manifest.json`; 64 bytes."""
    return key.sign(manifest)


def sign_rollback(key: Ed25519PrivateKey, decision: Rollback) -> bytes:
    """The decision as a document: its signature (64 bytes), then its JSON."""
    document = json.dumps(asdict(decision), sort_keys=True).encode()
    return key.sign(_ROLLBACK + document) + document


def verify_manifest(key: Ed25519PublicKey, manifest: bytes, signature: bytes) -> None:
    """Hold a signature against a manifest's exact bytes.

    Raises:
        TrustError: `trust.unsigned` or `trust.signature`.
    """
    if not signature:
        raise TrustError("the bundle is not signed: deploy it with the fleet's keys", code="trust.unsigned")
    try:
        key.verify(signature, manifest)
    except InvalidSignature:
        raise TrustError(
            "the bundle is not signed by this fleet, or was changed after that", code="trust.signature"
        ) from None


def read_rollback(key: Ed25519PublicKey, data: bytes) -> Rollback:
    """Read a decision that the fleet's owner signed.

    Raises:
        TrustError: `trust.rollback`: another's signature, or no decision.
    """
    signature, document = data[:SIGNATURE_BYTES], data[SIGNATURE_BYTES:]
    wrong = TrustError("the decision to roll back is not signed by this fleet", code="trust.rollback")
    if len(data) > LARGEST_DECISION_BYTES:
        raise wrong
    try:
        key.verify(signature, _ROLLBACK + document)
        fields = json.loads(document)
        return Rollback(str(fields["bundle"]), int(fields["newest"]), str(fields["manifest"]))
    except (InvalidSignature, ValueError, KeyError, TypeError):
        raise wrong from None


def admit(
    key: Ed25519PublicKey,
    manifest: Manifest,
    data: bytes,
    signature: bytes,
    *,
    newest: int,
    rollback: bytes = b"",
    now: datetime | None = None,
) -> None:
    """Decide whether a device may install from a manifest whose exact bytes are `data`.

    Args:
        key: the fleet's.
        manifest: what `data` says.
        data: the exact bytes of `manifest.json`.
        signature: what came as `manifest.sig`.
        newest: the highest version of this bundle that the device has served, 0 for none.
        rollback: a signed decision that lets an older version replace a newer one, or nothing.
        now: the time, the wall clock's when None.

    Raises:
        TrustError: `trust.unsigned`, `trust.signature`, `trust.expired`, `trust.older` or `trust.rollback`.
    """
    verify_manifest(key, data, signature)
    _check_expiry(manifest, now or datetime.now(UTC))
    if manifest.version >= newest:
        return
    if not rollback:
        raise TrustError(
            f"{manifest.name} version {manifest.version} is older than version {newest}, which this device "
            "has served: only the fleet's owner can go back, with `edvit-tf fleet rollback`",
            code="trust.older",
        )
    decision = read_rollback(key, rollback)
    if (decision.bundle, decision.manifest) != (manifest.name, hashlib.sha256(data).hexdigest()):
        raise TrustError("the decision to roll back is for another bundle", code="trust.rollback")
    if decision.newest < newest:
        raise TrustError(
            f"the decision to roll back covers versions up to {decision.newest}, and this device has "
            f"served version {newest}",
            code="trust.rollback",
        )


def _check_expiry(manifest: Manifest, now: datetime) -> None:
    if manifest.expires is None:
        return
    ends = datetime.fromisoformat(manifest.expires)
    if now > ends:
        raise TrustError(
            f"the manifest of {manifest.name} version {manifest.version} expired on {ends:%Y-%m-%d %H:%M} "
            f"UTC, and the clock here says {now:%Y-%m-%d %H:%M} UTC: deploy a newer version, or set the "
            "clock if that is wrong",
            code="trust.expired",
        )
