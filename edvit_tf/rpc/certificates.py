"""Who is who on the wire: the names in certificates, and how an authority issues them.

A device is `<id's first half>.<second half>.device.edvit`, so that TLS itself proves that the peer
holds the key whose SHA-256 is the id; every device is `device.edvit` too. An aggregator is
`aggregator.edvit`. Keys are ECDSA P-256: gRPC's TLS takes no Ed25519 certificate.
"""

import hashlib
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import NameOID

from edvit_tf.errors import TrustError

ANY_DEVICE = "device.edvit"
AGGREGATOR = "aggregator.edvit"
ID_LENGTH = 64
AUTHORITY_LIFE = timedelta(days=20 * 365)
CERTIFICATE_LIFE = timedelta(days=365)
# Clocks differ, and a board without a battery for its clock wakes up in the past.
BACKDATED = timedelta(days=1)
LARGEST_CERTIFICATE_BYTES = 16 * 1024
_DEVICE_NAME = re.compile(rf"([0-9a-f]{{32}})\.([0-9a-f]{{32}})\.{re.escape(ANY_DEVICE)}")


@dataclass(frozen=True, slots=True)
class Authority:
    """A fleet's certificate authority: whoever has the key decides who belongs to the fleet."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def id_of(key: ec.EllipticCurvePublicKey) -> str:
    """The lower-case hex SHA-256 (64 characters) of a public key's DER SubjectPublicKeyInfo."""
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def fingerprint(certificate: x509.Certificate) -> bytes:
    """The SHA-256 of a certificate's DER (32 bytes)."""
    return certificate.fingerprint(hashes.SHA256())


def device_name(device_id: str) -> str:
    """The name of the one device with this id; a label of a DNS name has at most 63 characters."""
    return f"{device_id[:32]}.{device_id[32:]}.{ANY_DEVICE}"


def device_of(names: Iterable[str]) -> str:
    """The id of the device that bears these names, empty when none of them is a device's."""
    found = [match for name in names if (match := _DEVICE_NAME.fullmatch(name))]
    return "".join(found[0].groups()) if found else ""


def new_authority(now: datetime) -> Authority:
    """Make an authority and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "edvit-tf fleet")])
    certificate = (
        _builder(name, key.public_key(), now, AUTHORITY_LIFE)
        .subject_name(name)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Authority(certificate, key)


def issue(
    authority: Authority,
    key: ec.EllipticCurvePublicKey,
    names: list[str],
    now: datetime,
    life: timedelta = CERTIFICATE_LIFE,
) -> x509.Certificate:
    """Certify that `key` may bear `names`, from a day ago until `life` from now."""
    return (
        _builder(authority.certificate.subject, key, now, life)
        .subject_name(x509.Name([]))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False
        )
        .sign(authority.key, hashes.SHA256())
    )


def issue_for_device(
    authority: Authority, key: ec.EllipticCurvePublicKey, now: datetime, life: timedelta = CERTIFICATE_LIFE
) -> x509.Certificate:
    """Make the holder of `key` a device of the fleet."""
    return issue(authority, key, [device_name(id_of(key)), ANY_DEVICE], now, life)


def _builder(
    issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + life)
    )


def parse_certificate(der: bytes) -> x509.Certificate:
    """Read a foreign certificate of a P-256 key.

    Raises:
        TrustError: `trust.certificate`: it is too large, no certificate, or one of another kind of key.
    """
    try:
        with warnings.catch_warnings():
            # What the library takes for the last time, with a warning, is no certificate of ours.
            warnings.simplefilter("error", CryptographyDeprecationWarning)
            certificate = x509.load_der_x509_certificate(der[:LARGEST_CERTIFICATE_BYTES])
    except (ValueError, x509.InvalidVersion, CryptographyDeprecationWarning) as error:
        raise TrustError("what came is no certificate", code="trust.certificate") from error
    key_of(certificate)
    return certificate


def check_issued(
    certificate: x509.Certificate, authority: x509.Certificate, device_id: str, now: datetime
) -> None:
    """Hold a certificate that was issued to the device `device_id` against its authority and the clock.

    Raises:
        TrustError: `trust.certificate`: another authority's, or for another key;
            `trust.clock`: not valid now.
    """
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm) as error:
        raise TrustError("the certificate is not from this fleet", code="trust.certificate") from error
    if id_of(key_of(certificate)) != device_id:
        raise TrustError("the certificate is for another device", code="trust.certificate")
    check_clock(certificate, "the certificate", now)


def check_clock(certificate: x509.Certificate, what: str, now: datetime) -> None:
    """Refuse a certificate that is not valid at `now`; the clock may be what is wrong, so it is named.

    Raises:
        TrustError: `trust.clock`.
    """
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if begins <= now <= ends:
        return
    state = "has expired" if now > ends else "is not valid yet"
    raise TrustError(
        f"{what} {state}: it is valid from {begins:%Y-%m-%d} to {ends:%Y-%m-%d}, and the clock here says "
        f"{now:%Y-%m-%d %H:%M} UTC: set the clock if that is wrong",
        code="trust.clock",
    )


def key_of(certificate: x509.Certificate) -> ec.EllipticCurvePublicKey:
    """The P-256 key that a certificate is for.

    Raises:
        TrustError: `trust.certificate`: it is of another kind.
    """
    wrong = TrustError("the certificate is not for a P-256 key", code="trust.certificate")
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise wrong from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise wrong
    return key


def utc_now() -> datetime:
    """The wall clock's time."""
    return datetime.now(UTC)
