"""Announcing a device on the local network by zeroconf (`_edvit._tcp.local.`).

An announcement is a hint and proves nothing. A device that cannot announce itself still serves: an aggregator
can be given its address by hand.
"""

import ipaddress
import logging
import re
from types import TracebackType
from typing import Self

from zeroconf import Error, InterfaceChoice
from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

from edvit_tf import __version__
from edvit_tf.device.service import Facts
from edvit_tf.rpc.address import reachable
from edvit_tf.rpc.link import PROTOCOL

SERVICE_TYPE = "_edvit._tcp.local."
# A killed device says no goodbye; after this many seconds its record is forgotten.
RECORD_SECONDS = 120

log = logging.getLogger(__name__)


class Advertisement:
    """An async context in which the device is announced; it says goodbye at the end."""

    def __init__(self, facts: Facts, address: str, port: int, *, pair: int = 0) -> None:
        self._zeroconf: AsyncZeroconf | None = None
        self._anywhere = ipaddress.ip_address(address).is_unspecified
        self._address = address
        self._info = service_info(facts, reachable(address), port, pair=pair)

    async def __aenter__(self) -> Self:
        interfaces = InterfaceChoice.All if self._anywhere else [self._address]
        try:
            self._zeroconf = AsyncZeroconf(interfaces=interfaces)
            # Another process with a copy of the same key gets a number behind its name instead of an error.
            registered = await self._zeroconf.async_register_service(self._info, allow_name_change=True)
            await registered
        except (OSError, Error) as error:
            log.warning(
                "cannot announce this device on %s (%s): aggregators find it only by --address",
                self._address,
                error,
            )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._zeroconf is not None:
            await self._zeroconf.async_unregister_all_services()
            await self._zeroconf.async_close()


def service_info(facts: Facts, addresses: list[str], port: int, *, pair: int = 0) -> AsyncServiceInfo:
    """Make the record: TXT keys id, name, proto, software, runtime; its name holds the id's beginning.

    `pair` is the port on which a device that is of no fleet yet waits to be paired.
    """
    # Two devices may have the same name, and a label has at most 63 bytes and no dots here.
    label = re.sub(r"[^A-Za-z0-9 _-]+", "-", facts.name)[:40] or "device"
    properties = {
        "id": facts.id,
        "name": facts.name,
        "proto": str(PROTOCOL),
        "software": __version__,
        "runtime": facts.runtime,
    }
    if pair:
        properties["pair"] = str(pair)
    return AsyncServiceInfo(
        SERVICE_TYPE,
        f"{label} {facts.id[:12]}.{SERVICE_TYPE}",
        port=port,
        properties=properties,
        server=f"edvit-{facts.id[:12]}.local.",
        parsed_addresses=addresses,
        host_ttl=RECORD_SECONDS,
        other_ttl=RECORD_SECONDS,
    )
