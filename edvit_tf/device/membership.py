"""Which fleet a device belongs to, as it is written down in its store."""

import base64
import json
from dataclasses import dataclass, replace

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from edvit_tf.device.identity import KEY_FILE, Identity
from edvit_tf.device.store import Store
from edvit_tf.errors import TrustError
from edvit_tf.rpc.certificates import check_issued, fingerprint, parse_certificate, utc_now
from edvit_tf.rpc.tls import Credentials

MEMBERSHIP_FILE = "membership.json"


@dataclass(frozen=True, slots=True)
class Membership:
    """The fleet's authority, what it issued to this device, and the key that signs the fleet's bundles."""

    authority: x509.Certificate
    certificate: x509.Certificate
    bundle_key: bytes

    @property
    def signer(self) -> Ed25519PublicKey:
        """The key that signs the fleet's bundles."""
        return Ed25519PublicKey.from_public_bytes(self.bundle_key)

    def credentials(self, identity: Identity) -> Credentials:
        """What the device listens with."""
        key = identity.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return Credentials(
            key=key,
            certificate=self.certificate.public_bytes(Encoding.PEM),
            authority=self.authority.public_bytes(Encoding.PEM),
        )


def save_membership(store: Store, membership: Membership) -> None:
    """Write it down, whole or not at all."""
    parts = {
        "authority": membership.authority.public_bytes(Encoding.DER),
        "certificate": membership.certificate.public_bytes(Encoding.DER),
        "bundle_key": membership.bundle_key,
    }
    document = {name: base64.b64encode(data).decode() for name, data in parts.items()}
    store.write(MEMBERSHIP_FILE, json.dumps(document, indent=2).encode())


def load_membership(store: Store) -> Membership | None:
    """Read what was written down; None for a device that is of no fleet yet.

    Raises:
        TrustError: `trust.membership`: the file holds something else.
    """
    data = store.read(MEMBERSHIP_FILE)
    if data is None:
        return None
    try:
        document = {name: base64.b64decode(text) for name, text in json.loads(data).items()}
        membership = Membership(
            parse_certificate(document["authority"]),
            parse_certificate(document["certificate"]),
            document["bundle_key"],
        )
        _ = membership.signer
    except (ValueError, KeyError, TypeError, AttributeError, TrustError) as error:
        raise TrustError(
            f"{store.path / MEMBERSHIP_FILE} is broken: delete it, and join the fleet again",
            code="trust.membership",
        ) from error
    return membership


def leave_fleet(store: Store, *, new_key: bool = False) -> bool:
    """Forget the fleet, and keep the device's key and so its id, unless it is to have a new one.

    Tells whether there was a fleet.
    """
    path = store.path / MEMBERSHIP_FILE
    member = path.exists()
    path.unlink(missing_ok=True)
    if new_key:
        (store.path / KEY_FILE).unlink(missing_ok=True)
    return member


class Shown:
    """What a member shows at each handshake, and how it takes a newer certificate while it serves."""

    def __init__(self, store: Store, identity: Identity, membership: Membership) -> None:
        self._store = store
        self._identity = identity
        self._membership = membership

    @property
    def fleet(self) -> bytes:
        """The fingerprint (32 bytes) of the fleet's authority."""
        return fingerprint(self._membership.authority)

    def credentials(self) -> Credentials:
        """What is shown now."""
        return self._membership.credentials(self._identity)

    def renew(self, newer: bytes) -> bytes:
        """Take a certificate (DER) that ends later; return the one that is shown, also for empty `newer`.

        Raises:
            TrustError: it is not from this fleet, not for this device, not valid now, or ends earlier.
        """
        if newer:
            certificate = parse_certificate(newer)
            check_issued(certificate, self._membership.authority, self._identity.id, utc_now())
            if certificate.not_valid_after_utc < self._membership.certificate.not_valid_after_utc:
                raise TrustError(
                    "the certificate ends earlier than the one that is shown", code="trust.certificate"
                )
            membership = replace(self._membership, certificate=certificate)
            save_membership(self._store, membership)
            self._membership = membership
        return self._membership.certificate.public_bytes(Encoding.DER)
