"""An address to listen on: "host:port"."""

import ipaddress
from dataclasses import dataclass

from edvit_tf.errors import UsageError


@dataclass(frozen=True, slots=True)
class Address:
    """An IP address of this machine, and a port (0: any free one)."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def loopback(self) -> bool:
        """Whether only this machine reaches it."""
        return ipaddress.ip_address(self.host).is_loopback


def listen_address(text: str, option: str) -> Address:
    """Read what was given for `option`.

    Raises:
        UsageError: it is not an IP address and a port.
    """
    host, colon, port = text.rpartition(":")
    try:
        plain = str(ipaddress.ip_address(host.removeprefix("[").removesuffix("]")))
    except ValueError:
        plain = ""
    if not colon or not plain or not (port.isascii() and port.isdecimal()) or int(port) > 65535:
        raise UsageError(
            f"{option} takes an IP address of this machine and a port, for example 127.0.0.1:8080, "
            f"not {text!r}"
        )
    return Address(plain, int(port))
