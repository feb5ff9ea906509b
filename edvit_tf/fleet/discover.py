"""Finding devices on the local network by zeroconf.

What is announced is a hint that anyone on the network may have written: every field is bounded and cleaned
here, and nothing is believed before the device itself has said hello.
"""

import asyncio
import ipaddress
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from zeroconf import Error, InterfaceChoice, ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from edvit_tf.errors import LinkError, UsageError
from edvit_tf.rpc.text import clean_text

SERVICE_TYPE = "_edvit._tcp.local."
RESOLVE_SECONDS = 2.0
# A flood of announcements fills no memory: later ones are ignored.
MOST_DEVICES = 256
# No machine has more bytes or cores; who announces them is not believed.
MOST_MEMORY = 1 << 50
MOST_CORES = 1 << 16
# What goes before the address of a device that has dialled in: nobody can call it there.
DIALLED = "dialled:"
_ID = re.compile(r"[0-9a-f]{64}")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Announced:
    """A device as it was announced; `id` is empty when only its address ("host:port") is known.

    `memory_bytes` is what it gives to sub-models; 0 and empty where nothing is known.
    `pair` is the address at which a device that is of no fleet waits to be paired, empty for all others.
    """

    address: str
    id: str = ""
    name: str = ""
    protocol: int = 0
    software: str = ""
    runtime: str = ""
    pair: str = ""
    kind: str = ""
    memory_bytes: int = 0
    cores: int = 0


def at_address(address: str) -> Announced:
    """Name a device by hand, as "host:port".

    Raises:
        UsageError: when it is not that.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise UsageError(f"a device's address is host:port, for example 192.168.1.20:7434, not {address!r}")
    return Announced(address=address)


async def discover(timeout: float = 3.0, *, expected: int | None = None) -> list[Announced]:
    """Browse for `timeout` seconds, or until `expected` devices have been found; sorted by name and id.

    One that is announced at several addresses is there several times: an impostor may have written any.

    Raises:
        LinkError: when the network cannot be browsed at all.
    """
    found: dict[tuple[str, str], Announced] = {}
    enough = asyncio.Event()

    def on_found(device: Announced) -> None:
        found[device.id, device.address] = device
        if expected is not None and len({one for one, _ in found}) >= expected:
            enough.set()

    async with Browser(on_found, lambda device: found.pop((device.id, device.address), None)):
        try:
            async with asyncio.timeout(timeout):
                await enough.wait()
        except TimeoutError:
            log.debug("browsed for %.1f s", timeout)
    return sorted(found.values(), key=lambda device: (device.name, device.id, device.address))


class Browser:
    """An async context in which `on_found` is called for every announcement, and again when it changes.

    `on_lost` is called when a device says goodbye.
    """

    def __init__(
        self, on_found: Callable[[Announced], None], on_lost: Callable[[Announced], object] | None = None
    ) -> None:
        self._on_found = on_found
        self._on_lost = on_lost
        self._known: dict[str, Announced] = {}
        self._resolving: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        try:
            self._zeroconf = AsyncZeroconf(interfaces=InterfaceChoice.All)
            self._browser = AsyncServiceBrowser(
                self._zeroconf.zeroconf, SERVICE_TYPE, handlers=[self._on_change]
            )
        except (OSError, Error) as error:
            raise LinkError(
                f"cannot look for devices on the network ({error}): give their addresses with --address"
            ) from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._resolving:
            task.cancel()
        await asyncio.gather(*self._resolving, return_exceptions=True)
        await self._browser.async_cancel()
        await self._zeroconf.async_close()

    def _on_change(
        self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange
    ) -> None:
        if state_change is ServiceStateChange.Removed:
            lost = self._known.pop(name, None)
            if lost and self._on_lost:
                self._on_lost(lost)
        elif name in self._known or len(self._resolving) + len(self._known) < MOST_DEVICES:
            task = asyncio.get_running_loop().create_task(self._resolve(zeroconf, service_type, name))
            self._resolving.add(task)
            task.add_done_callback(self._resolving.discard)

    async def _resolve(self, zeroconf: Zeroconf, service_type: str, name: str) -> None:
        info = AsyncServiceInfo(service_type, name)
        if not await info.async_request(zeroconf, RESOLVE_SECONDS * 1000):
            return
        device = cleaned(info.decoded_properties, info.parsed_addresses(), info.port)
        if device is not None:
            self._known[name] = device
            self._on_found(device)


def cleaned(properties: Mapping[str, str | None], addresses: list[str], port: int | None) -> Announced | None:
    """Turn what came from the network into an `Announced`; None when it has no id, address or port."""
    device = properties.get("id") or ""
    if not _ID.fullmatch(device) or not addresses or not port:
        return None
    # A device that announces its loopback address beside others is not on this machine, as a rule.
    host = min(addresses, key=lambda address: ipaddress.ip_address(address).is_loopback)
    pair = _whole(properties.get("pair"), 65535)
    return Announced(
        address=_join(host, port),
        pair=_join(host, pair) if pair else "",
        id=device,
        name=clean_text(properties.get("name")),
        protocol=_whole(properties.get("proto"), 99_999),
        software=clean_text(properties.get("software")),
        runtime=clean_text(properties.get("runtime")),
        kind=clean_text(properties.get("kind")),
        memory_bytes=_whole(properties.get("memory"), MOST_MEMORY),
        cores=_whole(properties.get("cores"), MOST_CORES),
    )


def _whole(text: str | None, most: int) -> int:
    """A whole number of at most `most`; 0 for anything else."""
    if not text or len(text) > len(str(most)) or not (text.isascii() and text.isdigit()):
        return 0
    number = int(text)
    return number if number <= most else 0


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
