"""Addresses to listen on and to connect to: "host:port"."""

import ipaddress
from dataclasses import dataclass

import ifaddr

from edvit_tf.errors import UsageError

LOOPBACK = "127.0.0.1"


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


def dialled_address(text: str, option: str) -> str:
    """Read where to connect to, a host's name or address and a port, as was given for `option`.

    Raises:
        UsageError: it is not that.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not host or not (port.isascii() and port.isdecimal()) or not 1 <= int(port) <= 65535:
        raise UsageError(f"{option} takes host:port, for example 192.168.1.10:7436, not {text!r}")
    return text


def reachable(address: str) -> list[str]:
    """The addresses of this machine under which a port on `address` is reached; 0.0.0.0 means all of them."""
    if not ipaddress.ip_address(address).is_unspecified:
        return [address]
    found = {str(ip.ip) for adapter in ifaddr.get_adapters() for ip in adapter.ips if ip.is_IPv4}
    # Another machine that tried our loopback address would meet itself.
    return sorted(ip for ip in found if not ipaddress.ip_address(ip).is_loopback) or [LOOPBACK]
