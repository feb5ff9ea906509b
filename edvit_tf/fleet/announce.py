"""Announcing by zeroconf (`_edvit-dial._tcp.local.`) where devices of a fleet may dial in."""

import secrets

from zeroconf.asyncio import AsyncServiceInfo

from edvit_tf.rpc.address import Address, reachable
from edvit_tf.rpc.announcement import RECORD_SECONDS, Announcement
from edvit_tf.rpc.inward import DIAL_SERVICE


def inward_announcement(fleet: bytes, address: Address) -> Announcement:
    """Announce the port on `address`, with the fingerprint (32 bytes) of the fleet."""
    label = f"{fleet.hex()[:12]}-{secrets.token_hex(4)}"
    info = AsyncServiceInfo(
        DIAL_SERVICE,
        f"{label}.{DIAL_SERVICE}",
        port=address.port,
        properties={"fleet": fleet.hex()},
        server=f"edvit-dial-{label}.local.",
        parsed_addresses=reachable(address.host),
        host_ttl=RECORD_SECONDS,
        other_ttl=RECORD_SECONDS,
    )
    return Announcement(info, address.host, "devices need it as --dial")
