"""How an aggregator reaches a device: with the fleet's keys, and in no other way."""

from edvit_tf.fleet.keys import FleetKeys
from edvit_tf.fleet.member import Connect
from edvit_tf.rpc.channel import GrpcLink
from edvit_tf.rpc.link import Link


def with_keys(keys: FleetKeys) -> Connect:
    """Links over mutual TLS: the peer proves that it is the device, or, without an id, of this fleet."""

    def connect(address: str, device_id: str) -> Link:
        return GrpcLink(address, keys.credentials, device_id)

    return connect
