"""Announcing a device on the local network by zeroconf (`_edvit._tcp.local.`)."""

import re

from zeroconf.asyncio import AsyncServiceInfo

from edvit_tf import __version__
from edvit_tf.device.service import Facts
from edvit_tf.rpc.address import reachable
from edvit_tf.rpc.announcement import RECORD_SECONDS, Announcement
from edvit_tf.rpc.link import PROTOCOL

SERVICE_TYPE = "_edvit._tcp.local."


def advertisement(facts: Facts, address: str, port: int, *, pair: int = 0) -> Announcement:
    """Announce the device, which listens on `port` of `address`."""
    info = service_info(facts, reachable(address), port, pair=pair)
    return Announcement(info, address, "aggregators find this device only by --address")


def service_info(facts: Facts, addresses: list[str], port: int, *, pair: int = 0) -> AsyncServiceInfo:
    """Make the record; its name holds the id's beginning.

    TXT keys: id, name, proto, software, runtime, kind, memory (bytes given to sub-models), cores, pair.
    `pair` is the port on which a device that is of no fleet yet waits to be paired.
    """
    # Two devices may have the same name, and a label has at most 63 bytes and no dots here.
    label = re.sub(r"[^A-Za-z0-9 _-]+", "-", facts.name)[:40] or "device"
    properties = {
        "id": facts.id,
        "name": facts.name,
        "proto": str(PROTOCOL),
        "software": __version__,
        "runtime": facts.runtime,
        "kind": facts.kind,
        "memory": str(facts.memory_bytes),
        "cores": str(facts.cores),
    }
    if pair:
        properties["pair"] = str(pair)
    return AsyncServiceInfo(
        SERVICE_TYPE,
        f"{label} {facts.id[:12]}.{SERVICE_TYPE}",
        port=port,
        properties=properties,
        server=f"edvit-{facts.id[:12]}.local.",
        parsed_addresses=addresses,
        host_ttl=RECORD_SECONDS,
        other_ttl=RECORD_SECONDS,
    )
