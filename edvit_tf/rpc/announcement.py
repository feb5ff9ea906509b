"""Saying on the local network, by zeroconf, that something listens here: a hint, which proves nothing."""

import ipaddress
import logging
from types import TracebackType
from typing import Self

from zeroconf import Error, InterfaceChoice
from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

# Who is killed says no goodbye; after this many seconds the record is forgotten.
RECORD_SECONDS = 120

log = logging.getLogger(__name__)


class Announcement:
    """An async context in which a service is announced; it says goodbye at the end.

    What cannot be announced still serves: the log then says `otherwise`, how it is found all the same.
    """

    def __init__(self, info: AsyncServiceInfo, host: str, otherwise: str) -> None:
        self._info = info
        self._host = host
        self._otherwise = otherwise
        self._zeroconf: AsyncZeroconf | None = None

    async def __aenter__(self) -> Self:
        anywhere = ipaddress.ip_address(self._host).is_unspecified
        try:
            self._zeroconf = AsyncZeroconf(interfaces=InterfaceChoice.All if anywhere else [self._host])
            # Another process with a copy of the same key gets a number behind its name instead of an error.
            registered = await self._zeroconf.async_register_service(self._info, allow_name_change=True)
            await registered
        except (OSError, Error) as error:
            log.warning(
                "cannot announce port %s of %s (%s): %s", self._info.port, self._host, error, self._otherwise
            )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._zeroconf is not None:
            await self._zeroconf.async_unregister_all_services()
            await self._zeroconf.async_close()
