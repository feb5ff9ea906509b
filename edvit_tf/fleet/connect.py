"""How an aggregator reaches a device: with the fleet's keys, and in no other way.

A device that listens is called. One that has dialled in is asked over its own connection, which this process
has, or which the aggregator that runs has.
"""

from edvit_tf.fleet.discover import DIALLED
from edvit_tf.fleet.inward import Inward
from edvit_tf.fleet.keys import FleetKeys
from edvit_tf.fleet.member import Connect
from edvit_tf.rpc.channel import ChannelLink, GrpcLink
from edvit_tf.rpc.link import Link
from edvit_tf.rpc.relay import RelayedLink
from edvit_tf.rpc.tls import Credentials
from edvit_tf.rpc.tunnel import Tunnel
from edvit_tf.rpc.tunnelled import TunnelledLink

NOBODY_TO_DIAL = "it dials in, and no aggregator runs"


def with_keys(keys: FleetKeys, *, inward: Inward | None = None, relay: str = "") -> Connect:
    """Links over mutual TLS: the peer proves that it is the device, or, without an id, of this fleet.

    Args:
        keys: the fleet's.
        inward: the devices that have dialled in here.
        relay: where the aggregator that runs listens for the owner's programs; it has those that dialled in.
    """

    def connect(address: str, device_id: str) -> Link:
        return link_to(address, device_id, keys.credentials, inward, relay)

    return connect


def link_to(
    address: str, device_id: str, credentials: Credentials, inward: Inward | None = None, relay: str = ""
) -> ChannelLink:
    """One link, as `with_keys` makes them."""
    if not address.startswith(DIALLED):
        return GrpcLink(address, credentials, device_id)
    if inward is not None:
        return inward.connect(address, device_id)
    if relay:
        return RelayedLink(address, relay, credentials, device_id or address)
    return TunnelledLink(address, Tunnel.over(NOBODY_TO_DIAL))
