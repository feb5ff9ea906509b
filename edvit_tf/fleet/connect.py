"""How an aggregator reaches a device: with the fleet's keys, or in the clear where there is no fleet."""

from edvit_tf.fleet.keys import FleetKeys
from edvit_tf.fleet.member import Connect
from edvit_tf.rpc.channel import GrpcLink
from edvit_tf.rpc.link import Link


def in_the_clear(address: str, device_id: str) -> Link:
    """A link that proves nothing."""
    del device_id
    return GrpcLink(address)


def with_keys(keys: FleetKeys) -> Connect:
    """Links over mutual TLS: the peer proves that it is the device, or, without an id, of this fleet."""

    def connect(address: str, device_id: str) -> Link:
        return GrpcLink(address, keys.credentials, device_id)

    return connect
