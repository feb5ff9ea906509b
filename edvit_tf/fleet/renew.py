"""Keeping the devices' certificates from ending: renewed long before, and named when that did not work."""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta

from cryptography.hazmat.primitives.serialization import Encoding

from edvit_tf.errors import EdvitError
from edvit_tf.fleet.discover import Announced
from edvit_tf.fleet.keys import RENEW_BEFORE, FleetKeys
from edvit_tf.rpc.certificates import check_issued, issue_for_device, key_of, parse_certificate, utc_now
from edvit_tf.rpc.channel import GrpcLink

WARN_BEFORE = timedelta(days=30)
CALL_SECONDS = 2.0


async def renew(devices: Sequence[Announced], keys: FleetKeys, *, now: datetime | None = None) -> list[str]:
    """Renew what ends within `RENEW_BEFORE`; return a sentence for each that ends within `WARN_BEFORE` still.

    A device that cannot be reached is passed over: the survey of the fleet says why.
    """
    moment = now or utc_now()
    ends = await asyncio.gather(*(_renewed(device, keys, moment) for device in devices))
    return [
        f"the certificate of {device.name or device.address} ends on {end:%Y-%m-%d} and could not be "
        "renewed: run `edvit-tf device leave` there and adopt it again"
        for device, end in zip(devices, ends, strict=True)
        if end is not None and end - moment < WARN_BEFORE
    ]


async def _renewed(device: Announced, keys: FleetKeys, now: datetime) -> datetime | None:
    """When the device's certificate ends, after renewing it if that is due; None when nobody answers."""
    link = GrpcLink(device.address, keys.credentials, device.id)
    try:
        shown = parse_certificate(await link.certificate(timeout=CALL_SECONDS))
        if shown.not_valid_after_utc - now >= RENEW_BEFORE:
            return shown.not_valid_after_utc
        check_issued(shown, keys.authority.certificate, device.id, now)
        try:
            fresh = issue_for_device(keys.authority, key_of(shown), now)
            taken = await link.certificate(fresh.public_bytes(Encoding.DER), timeout=CALL_SECONDS)
            return parse_certificate(taken).not_valid_after_utc
        except EdvitError:
            return shown.not_valid_after_utc
    except EdvitError:
        return None
    finally:
        await link.close()
