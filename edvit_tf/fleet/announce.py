"""Announcing by zeroconf (`_edvit-dial._tcp.local.`) where devices of a fleet may dial in: only a hint."""

import ipaddress
import logging
import secrets
from types import TracebackType
from typing import Self

from zeroconf import Error, InterfaceChoice
from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

from edvit_tf.rpc.address import Address, reachable
from edvit_tf.rpc.inward import DIAL_SERVICE

RECORD_SECONDS = 120

log = logging.getLogger(__name__)


class InwardAnnouncement:
    """An async context in which the port is announced, with the fingerprint (32 bytes) of the fleet."""

    def __init__(self, fleet: bytes, address: Address) -> None:
        self._address = address
        label = f"{fleet.hex()[:12]}-{secrets.token_hex(4)}"
        self._info = AsyncServiceInfo(
            DIAL_SERVICE,
            f"{label}.{DIAL_SERVICE}",
            port=address.port,
            properties={"fleet": fleet.hex()},
            server=f"edvit-dial-{label}.local.",
            parsed_addresses=reachable(address.host),
            host_ttl=RECORD_SECONDS,
            other_ttl=RECORD_SECONDS,
        )
        self._zeroconf: AsyncZeroconf | None = None

    async def __aenter__(self) -> Self:
        anywhere = ipaddress.ip_address(self._address.host).is_unspecified
        interfaces = InterfaceChoice.All if anywhere else [self._address.host]
        try:
            self._zeroconf = AsyncZeroconf(interfaces=interfaces)
            await self._zeroconf.async_register_service(self._info)
        except (OSError, Error) as error:
            log.warning("cannot announce %s (%s): devices need it as --dial", self._address, error)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._zeroconf is not None:
            await self._zeroconf.async_unregister_all_services()
            await self._zeroconf.async_close()
