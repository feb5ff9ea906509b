"""Who a device is: a P-256 key that never leaves its store, and the SHA-256 of the public half."""

from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from edvit_tf.device.store import Store
from edvit_tf.errors import DeviceError
from edvit_tf.rpc.certificates import id_of

KEY_FILE = "key.pem"


@dataclass(frozen=True, slots=True)
class Identity:
    """A device's key and the id that follows from it.

    `id` is the lower-case hex SHA-256 of the public key's DER SubjectPublicKeyInfo (64 characters).
    """

    id: str
    key: ec.EllipticCurvePrivateKey


def load_or_make(store: Store) -> Identity:
    """Read the key from the store; make it (mode 0600) when there is none.

    Raises:
        DeviceError: when the file holds something else, or cannot be read or written.
    """
    pem = store.read(KEY_FILE)
    if pem is None:
        key = ec.generate_private_key(ec.SECP256R1())
        store.write(KEY_FILE, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    else:
        key = _parse(pem, str(store.path / KEY_FILE))
    return Identity(id_of(key.public_key()), key)


def _parse(pem: bytes, where: str) -> ec.EllipticCurvePrivateKey:
    advice = "put the right file back, or delete it and the device gets a new identity"
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        raise DeviceError(f"{where} holds no private key: {advice}", code="device.key") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise DeviceError(f"{where} holds a key that is not P-256: {advice}", code="device.key")
    return key
