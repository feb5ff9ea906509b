"""A fleet's certificates, without folders: one authority, and whoever a test needs."""

from datetime import datetime, timedelta

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from edvit_tf.rpc.certificates import (
    AGGREGATOR,
    ANY_DEVICE,
    CERTIFICATE_LIFE,
    Authority,
    device_name,
    id_of,
    issue,
    new_authority,
    utc_now,
)
from edvit_tf.rpc.tls import Credentials


class TestFleet:
    """One authority."""

    __test__ = False

    def __init__(self) -> None:
        self.authority: Authority = new_authority(utc_now())

    def aggregator(self, *, now: datetime | None = None) -> Credentials:
        return self.credentials(ec.generate_private_key(ec.SECP256R1()), [AGGREGATOR], now)

    def device(
        self, *, now: datetime | None = None, life: timedelta = CERTIFICATE_LIFE
    ) -> tuple[str, Credentials]:
        """A device's id and credentials."""
        key = ec.generate_private_key(ec.SECP256R1())
        device_id = id_of(key.public_key())
        return device_id, self.credentials(key, [device_name(device_id), ANY_DEVICE], now, life)

    def credentials(
        self,
        key: ec.EllipticCurvePrivateKey,
        names: list[str],
        now: datetime | None = None,
        life: timedelta = CERTIFICATE_LIFE,
    ) -> Credentials:
        """What a peer shows that the authority has certified these names."""
        certificate = issue(self.authority, key.public_key(), names, now or utc_now(), life)
        return Credentials(
            key=key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
            certificate=certificate.public_bytes(Encoding.PEM),
            authority=self.authority.certificate.public_bytes(Encoding.PEM),
        )
