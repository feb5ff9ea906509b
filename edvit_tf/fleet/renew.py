"""Keeping the devices' certificates from ending: renewed long before, and named when that did not work."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding

from edvit_tf.errors import EdvitError
from edvit_tf.fleet.connect import link_to
from edvit_tf.fleet.discover import Announced
from edvit_tf.fleet.hello import DeviceStatus
from edvit_tf.fleet.inward import Inward
from edvit_tf.fleet.keys import RENEW_BEFORE, FleetKeys, load_keys
from edvit_tf.rpc.certificates import check_issued, issue_for_device, key_of, parse_certificate, utc_now
from edvit_tf.rpc.channel import ChannelLink

WARN_BEFORE = timedelta(days=30)
CALL_SECONDS = 2.0
DAY_SECONDS = 24 * 3600.0


class Keyring:
    """The fleet's keys in a process that runs for long, whose own certificate has to be renewed, too.

    Raises:
        TrustError: as `load_keys`.
    """

    def __init__(self, folder: Path, passphrase: str = "", *, inward: Inward | None = None) -> None:
        self.folder = folder
        self._passphrase = passphrase
        self._inward = inward
        self.keys = load_keys(folder, passphrase)

    def connect(self, address: str, device_id: str) -> ChannelLink:
        """A link as `with_keys` makes it, with the newest certificate."""
        return link_to(address, device_id, self.keys.credentials, self._inward)

    def refresh(self, now: datetime) -> None:
        """Renew the aggregator's certificate when that is due; raises TrustError as `load_keys`."""
        self.keys = load_keys(self.folder, self._passphrase, now=now)


async def keep_renewed(
    keyring: Keyring,
    status: Callable[[], Iterable[DeviceStatus]],
    on_warning: Callable[[str], None],
    *,
    interval: float = DAY_SECONDS,
    clock: Callable[[], datetime] = utc_now,
) -> None:
    """Renew what ends within `RENEW_BEFORE`, the aggregator's and the devices', until it is cancelled.

    Args:
        keyring: what the aggregator connects with (`Keyring.connect`).
        status: where the devices are, such as `Aggregator.status`; asked each time.
        on_warning: called with a sentence for each certificate that could not be renewed in time.
        interval: seconds between two rounds; the first is at once.
        clock: the wall clock.
    """
    while True:
        devices = [Announced(row.address, row.id, row.name) for row in status()]
        try:
            await asyncio.to_thread(keyring.refresh, clock())
            warnings = await renew(devices, keyring.keys, connect=keyring.connect, now=clock())
        except EdvitError as error:
            warnings = [error.message]
        for warning in warnings:
            on_warning(warning)
        await asyncio.sleep(interval)


async def renew(
    devices: Sequence[Announced],
    keys: FleetKeys,
    *,
    connect: Callable[[str, str], ChannelLink] | None = None,
    now: datetime | None = None,
) -> list[str]:
    """Renew what ends within `RENEW_BEFORE`; return a sentence for each that ends within `WARN_BEFORE` still.

    A device that cannot be reached is passed over: the survey of the fleet says why.
    """
    moment = now or utc_now()
    open_link = connect or partial(link_to, credentials=keys.credentials)
    links = [open_link(device.address, device.id) for device in devices]
    ends = await asyncio.gather(
        *(_renewed(link, device.id, keys, moment) for link, device in zip(links, devices, strict=True))
    )
    return [
        f"the certificate of {device.name or device.address} ends on {end:%Y-%m-%d} and could not be "
        "renewed: run `edvit-tf device leave` there and adopt it again"
        for device, end in zip(devices, ends, strict=True)
        if end is not None and end - moment < WARN_BEFORE
    ]


async def _renewed(link: ChannelLink, device: str, keys: FleetKeys, now: datetime) -> datetime | None:
    """When the device's certificate ends, after renewing it if that is due; None when nobody answers."""
    try:
        shown = parse_certificate(await link.certificate(timeout=CALL_SECONDS))
        if shown.not_valid_after_utc - now >= RENEW_BEFORE:
            return shown.not_valid_after_utc
        check_issued(shown, keys.authority.certificate, device, now)
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
