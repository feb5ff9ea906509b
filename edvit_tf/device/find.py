"""Where the aggregator of a fleet may be dialled, by zeroconf: anybody may have announced any of it."""

import asyncio
import contextlib
import ipaddress
import logging
import re
from collections.abc import Mapping

from zeroconf import Error, InterfaceChoice, ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from edvit_tf.rpc.inward import DIAL_SERVICE

BROWSE_SECONDS = 2.0
# Each is dialled in its turn: a flood of announcements must not hide the right one for ever.
MOST_FOUND = 32
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")

log = logging.getLogger(__name__)


async def find_aggregators(fleet: bytes, seconds: float = BROWSE_SECONDS) -> list[str]:
    """The addresses ("host:port") at which an aggregator of the fleet with this fingerprint is announced."""
    found: dict[str, None] = {}
    resolving: set[asyncio.Task[None]] = set()

    async def resolve(zeroconf: Zeroconf, name: str) -> None:
        info = AsyncServiceInfo(DIAL_SERVICE, name)
        if await info.async_request(zeroconf, 1000 * seconds):
            for address in announced(info.decoded_properties, info.parsed_addresses(), info.port, fleet):
                if len(found) < MOST_FOUND:
                    found[address] = None

    def on_change(zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange) -> None:
        del service_type
        if state_change is not ServiceStateChange.Removed and len(resolving) < MOST_FOUND:
            resolving.add(asyncio.get_running_loop().create_task(resolve(zeroconf, name)))

    try:
        browsing = AsyncZeroconf(interfaces=InterfaceChoice.All)
    except (OSError, Error) as error:
        log.warning("cannot look for the aggregator (%s): name it with --dial host:port", error)
        return []
    try:
        browser = AsyncServiceBrowser(browsing.zeroconf, DIAL_SERVICE, handlers=[on_change])
        await asyncio.sleep(seconds)
        await browser.async_cancel()
    finally:
        for task in resolving:
            task.cancel()
        await asyncio.gather(*resolving, return_exceptions=True)
        with contextlib.suppress(OSError):
            await browsing.async_close()
    return list(found)


def announced(
    properties: Mapping[str, str | None], addresses: list[str], port: int | None, fleet: bytes
) -> list[str]:
    """What one announcement offers to a device of `fleet`, which is nothing when it is of another."""
    said = properties.get("fleet") or ""
    if not _FINGERPRINT.fullmatch(said) or bytes.fromhex(said) != fleet or not port:
        return []
    # An aggregator that announces its loopback address beside others is not on this machine, as a rule.
    nearest_last = sorted(addresses, key=lambda address: ipaddress.ip_address(address).is_loopback)
    return [f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host in nearest_last]
