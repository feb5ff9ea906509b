"""Phones that offer adb over the network (Android's "wireless debugging"), found by zeroconf."""

import time
from dataclasses import dataclass

from zeroconf import Error, ServiceBrowser, ServiceStateChange, Zeroconf

from edvit_tf.errors import LinkError
from edvit_tf.rpc.address import Address
from edvit_tf.rpc.text import clean_text

SERVICE_TYPE = "_adb-tls-connect._tcp.local."
_RESOLVE_MILLISECONDS = 1000
_MOST = 64  # whoever floods the network fills no memory


@dataclass(frozen=True, slots=True)
class Nearby:
    """A phone as it announces itself; `address` is what `adb connect` takes."""

    name: str
    address: str


def nearby(seconds: float = 2.0) -> list[Nearby]:
    """Listen for so many seconds; sorted by name.

    Raises:
        LinkError: the network cannot be listened to.
    """
    names: set[str] = set()

    # zeroconf names its arguments.
    def hear(name: str, state_change: ServiceStateChange, **_: object) -> None:
        if state_change is ServiceStateChange.Added and len(names) < _MOST:
            names.add(name)

    try:
        with Zeroconf() as zeroconf:
            browser = ServiceBrowser(zeroconf, SERVICE_TYPE, handlers=[hear])
            time.sleep(seconds)
            browser.cancel()
            found = [_resolve(zeroconf, name) for name in sorted(names)]
    except (OSError, Error) as error:
        raise LinkError(f"phones cannot be looked for in the network: {error}") from error
    return [one for one in found if one is not None]


def _resolve(zeroconf: Zeroconf, name: str) -> Nearby | None:
    info = zeroconf.get_service_info(SERVICE_TYPE, name, timeout=_RESOLVE_MILLISECONDS)
    addresses = info.parsed_addresses() if info else []
    if info is None or not addresses or info.port is None:
        return None
    address = Address(addresses[0], info.port)
    return Nearby(clean_text(name.removesuffix("." + SERVICE_TYPE)), str(address))
