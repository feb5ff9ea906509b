"""Finding the aggregator to dial: of this fleet alone, whatever else is announced."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edvit_tf.device.find import announced, find_aggregators
from edvit_tf.fleet.announce import inward_announcement
from edvit_tf.rpc.address import Address

OURS, THEIRS = bytes(32), bytes([1]) * 32


async def test_an_aggregator_of_this_fleet_is_found_and_no_other() -> None:
    async with (
        inward_announcement(OURS, Address("127.0.0.1", 7436)),
        inward_announcement(THEIRS, Address("127.0.0.1", 7437)),
    ):
        assert await find_aggregators(OURS) == ["127.0.0.1:7436"]
    assert await find_aggregators(bytes([2]) * 32, 0.5) == []


def test_loopback_is_tried_last() -> None:
    said = announced({"fleet": OURS.hex()}, ["127.0.0.1", "192.168.1.2", "fe80::1"], 7436, OURS)
    assert said == ["192.168.1.2:7436", "[fe80::1]:7436", "127.0.0.1:7436"]


@pytest.mark.fault
@given(
    st.dictionaries(st.sampled_from(["fleet", "x"]), st.none() | st.text() | st.just(OURS.hex())),
    st.lists(st.ip_addresses().map(str)),
    st.none() | st.integers(0, 65535),
)
def test_whatever_is_announced_is_an_address_or_nothing(
    properties: dict[str, str | None], addresses: list[str], port: int | None
) -> None:
    found = announced(properties, addresses, port, OURS)
    assert len(found) in (0, len(addresses))
    assert not found or properties.get("fleet") == OURS.hex()
    for address in found:
        host, _, number = address.rpartition(":")
        assert ipaddress.ip_address(host.strip("[]"))
        assert int(number) == port
