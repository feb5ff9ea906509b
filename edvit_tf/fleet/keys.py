"""The owner's keys: an authority that says who belongs to the fleet, and a key that signs bundles.

They are files in `keys/` of the fleet's folder that only their owner can read. Both may be encrypted with one
passphrase. The aggregator's own key is never encrypted: it proves who asks, and decides nothing.
"""

import os
import secrets
import shutil
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from edvit_tf.errors import TrustError
from edvit_tf.rpc.certificates import AGGREGATOR, Authority, check_clock, issue, new_authority, utc_now
from edvit_tf.rpc.tls import Credentials

KEYS = "keys"
AUTHORITY_KEY = "authority.key.pem"
AUTHORITY_CERTIFICATE = "authority.pem"
BUNDLE_KEY = "bundle.key.pem"
AGGREGATOR_KEY = "aggregator.key.pem"
AGGREGATOR_CERTIFICATE = "aggregator.pem"
RENEW_BEFORE = timedelta(days=90)


@dataclass(frozen=True, slots=True)
class FleetKeys:
    """Everything that the fleet's owner has; `credentials` are what the aggregator shows to devices."""

    authority: Authority
    bundle_key: ed25519.Ed25519PrivateKey
    credentials: Credentials


def make_keys(folder: Path, passphrase: str = "", *, now: datetime | None = None) -> FleetKeys:
    """Make the fleet's keys in `folder`, all of them or none.

    Raises:
        TrustError: `trust.exists`: there are keys already; `trust.write`: the folder cannot be written.
    """
    target = folder / KEYS
    if target.exists():
        raise TrustError(
            f"{target} holds a fleet's keys already: go on with them, or name another --state",
            code="trust.exists",
        )
    moment = now or utc_now()
    authority = new_authority(moment)
    bundle_key = ed25519.Ed25519PrivateKey.generate()
    own = ec.generate_private_key(ec.SECP256R1())
    certificate = issue(authority, own.public_key(), [AGGREGATOR], moment)
    hidden = BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
    files = {
        AUTHORITY_KEY: _pem(authority.key, hidden),
        AUTHORITY_CERTIFICATE: authority.certificate.public_bytes(Encoding.PEM),
        BUNDLE_KEY: _pem(bundle_key, hidden),
        AGGREGATOR_KEY: _pem(own, NoEncryption()),
        AGGREGATOR_CERTIFICATE: certificate.public_bytes(Encoding.PEM),
    }
    temporary = folder / f".{KEYS}.{secrets.token_hex(4)}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary.mkdir(mode=0o700)
        for name, data in files.items():
            _write(temporary / name, data)
        temporary.rename(target)
    except OSError as error:
        raise TrustError(
            f"cannot write the fleet's keys to {target} ({error.strerror or error}): name another --state",
            code="trust.write",
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return FleetKeys(authority, bundle_key, _credentials(own, certificate, authority.certificate))


def has_keys(folder: Path) -> bool:
    """Whether a fleet was made in `folder`."""
    return (folder / KEYS).is_dir()


def load_keys(folder: Path, passphrase: str = "", *, now: datetime | None = None) -> FleetKeys:
    """Read the fleet's keys; the aggregator's certificate is renewed when it ends within `RENEW_BEFORE`.

    So is one from the future: it was renewed while the clock was wrong.

    Raises:
        TrustError: `trust.missing` (no keys there), `trust.open` (others may read them),
            `trust.passphrase` (none given, or the wrong one), `trust.key` (a file holds something else),
            `trust.write` (the renewed certificate cannot be written), `trust.clock` (the authority is not
            valid now, so the clock is wrong).
    """
    keys = folder / KEYS
    if not has_keys(folder):
        raise TrustError(f"there is no fleet in {folder}: run `edvit-tf fleet init`", code="trust.missing")
    authority_key = _load(keys / AUTHORITY_KEY, passphrase)
    bundle_key = _load(keys / BUNDLE_KEY, passphrase)
    own = _load(keys / AGGREGATOR_KEY, "")
    if (
        not isinstance(authority_key, ec.EllipticCurvePrivateKey)
        or not isinstance(own, ec.EllipticCurvePrivateKey)
        or not isinstance(bundle_key, ed25519.Ed25519PrivateKey)
    ):
        raise _broken(keys)
    authority = Authority(_certificate(keys / AUTHORITY_CERTIFICATE), authority_key)
    certificate = _certificate(keys / AGGREGATOR_CERTIFICATE)
    moment = now or utc_now()
    check_clock(authority.certificate, "the fleet's authority", moment)
    if not certificate.not_valid_before_utc <= moment <= certificate.not_valid_after_utc - RENEW_BEFORE:
        certificate = issue(authority, own.public_key(), [AGGREGATOR], moment)
        _replace(keys / AGGREGATOR_CERTIFICATE, certificate.public_bytes(Encoding.PEM))
    return FleetKeys(authority, bundle_key, _credentials(own, certificate, authority.certificate))


def _credentials(
    key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate, authority: x509.Certificate
) -> Credentials:
    return Credentials(
        key=_pem(key, NoEncryption()),
        certificate=certificate.public_bytes(Encoding.PEM),
        authority=authority.public_bytes(Encoding.PEM),
    )


def _pem(
    key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey, hidden: KeySerializationEncryption
) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, hidden)


def _write(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        _write(temporary, data)
        temporary.rename(path)
    except OSError as error:
        raise TrustError(
            f"cannot renew {path} ({error.strerror or error}): make room, or let this user write there",
            code="trust.write",
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _load(path: Path, passphrase: str) -> object:
    try:
        if path.stat().st_mode & 0o077:
            raise TrustError(f"others may read {path}: run `chmod 600 {path}`", code="trust.open")
        pem = path.read_bytes()
    except OSError as error:
        raise _broken(path) from error
    encrypted = b"ENCRYPTED" in pem
    if encrypted and not passphrase:
        raise TrustError(
            "the fleet's keys have a passphrase: give it in EDVIT_PASSPHRASE", code="trust.passphrase"
        )
    try:
        return load_pem_private_key(pem, passphrase.encode() if encrypted else None)
    except (ValueError, TypeError) as error:
        if encrypted:
            raise TrustError(
                "the passphrase of the fleet's keys is wrong", code="trust.passphrase"
            ) from error
        raise _broken(path) from error


def _certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise _broken(path) from error


def _broken(path: Path) -> TrustError:
    return TrustError(
        f"{path} does not hold what `edvit-tf fleet init` wrote: put the right file back", code="trust.key"
    )
