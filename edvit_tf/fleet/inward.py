"""The devices that have dialled in: who is there, and how to ask them.

Such a device has no address that could be called. It goes by the one that it dialled from, after `DIALLED`.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

from edvit_tf.errors import TrustError
from edvit_tf.fleet.discover import DIALLED, Announced
from edvit_tf.fleet.member import MOST_ADDRESSES
from edvit_tf.rpc.tunnel import Tunnel
from edvit_tf.rpc.tunnelled import TunnelledLink

OnArrival = Callable[[Announced], None]


class Inward:
    """Keeps the tunnels of devices (`edvit_tf.rpc.inward.serve_inward`), of those that `admit` names alone.

    A device has several for a moment when it dials again before its last connection is known to be broken,
    and for longer when its key was copied.
    """

    def __init__(self) -> None:
        self._admitted: frozenset[str] = frozenset()
        self._tunnels: dict[str, Tunnel] = {}
        self._listeners: list[OnArrival] = []

    def admit(self, devices: Collection[str]) -> None:
        """From now on these (ids) may dial in and nobody else; others that have are hung up on."""
        self._admitted = frozenset(devices)
        for tunnel in self._tunnels.values():
            if tunnel.peer not in self._admitted:
                tunnel.close()

    @contextmanager
    def welcome(self, origin: str, tunnel: Tunnel) -> Iterator[None]:
        """Take a tunnel that a device has opened from the address `origin`.

        Raises:
            TrustError: `trust.removed`: it is not, or no more, a device of the fleet.
        """
        if tunnel.peer not in self._admitted:
            raise TrustError("it is no device of this fleet, or was removed from it", code="trust.removed")
        before = self._of(tunnel.peer)
        for one in before[: max(0, len(before) + 1 - MOST_ADDRESSES)]:
            one.close()
        address = f"{DIALLED}{origin}"
        self._tunnels[address] = tunnel
        try:
            for listener in self._listeners:
                listener(Announced(address, tunnel.peer))
            yield
        finally:
            del self._tunnels[address]

    @contextmanager
    def watched(self, on_arrival: OnArrival) -> Iterator[None]:
        """Have `on_arrival` called for each device that is there, and for each that comes."""
        for announced in self.present():
            on_arrival(announced)
        self._listeners.append(on_arrival)
        try:
            yield
        finally:
            self._listeners.remove(on_arrival)

    def present(self) -> list[Announced]:
        """Who is there now."""
        return [Announced(address, tunnel.peer) for address, tunnel in self._tunnels.items()]

    def tunnel_to(self, wanted: str) -> Tunnel:
        """The tunnel from this address, or the newest one of this device (its id)."""
        tunnels = [found] if (found := self._tunnels.get(wanted)) else self._of(wanted)
        return tunnels[-1] if tunnels else Tunnel.over("it has not dialled in")

    def connect(self, address: str, device_id: str) -> TunnelledLink:
        """A link to a device that dialled from `address`, or since then from another one."""
        return TunnelledLink(address, self._tunnels.get(address) or self.tunnel_to(device_id))

    def _of(self, device: str) -> list[Tunnel]:
        return [tunnel for tunnel in self._tunnels.values() if tunnel.peer == device]
