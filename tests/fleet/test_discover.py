"""What is announced is foreign text."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edvit_tf.errors import UsageError
from edvit_tf.fleet import Announced, at_address
from edvit_tf.fleet.discover import cleaned

ID = "ab" * 32


def test_a_proper_announcement_is_taken_as_it_is() -> None:
    properties = {"id": ID, "name": "kitchen", "proto": "1", "software": "0.1", "runtime": "x/2"}
    properties |= {"kind": "aarch64 Linux", "memory": "500000000", "cores": "4"}
    assert cleaned(properties, ["192.0.2.7"], 7434) == Announced(
        "192.0.2.7:7434",
        ID,
        "kitchen",
        1,
        "0.1",
        "x/2",
        kind="aarch64 Linux",
        memory_bytes=500_000_000,
        cores=4,
    )


@pytest.mark.parametrize("id", ["", "AB" * 32, "ab" * 31, "ab" * 33, "../" * 20, None])
def test_without_a_proper_id_it_is_nothing(id: str | None) -> None:  # noqa: A002
    assert cleaned({"id": id}, ["192.0.2.7"], 7434) is None


def test_without_address_or_port_it_is_nothing() -> None:
    assert cleaned({"id": ID}, [], 7434) is None
    assert cleaned({"id": ID}, ["192.0.2.7"], 0) is None
    assert cleaned({"id": ID}, ["192.0.2.7"], None) is None


def test_an_address_that_others_reach_comes_before_loopback() -> None:
    device = cleaned({"id": ID}, ["127.0.0.1", "192.0.2.7", "192.0.2.8"], 1)
    assert device is not None
    assert device.address == "192.0.2.7:1"


@settings(max_examples=5000)
@given(
    pair=st.text(max_size=8) | st.integers(-1, 10**6).map(str),
    name=st.text(max_size=300),
    proto=st.text(max_size=20),
    software=st.none() | st.text(),
    runtime=st.text(),
    number=st.text(max_size=20) | st.integers(-1, 10**20).map(str),
)
def test_no_announcement_can_hurt_a_terminal_or_a_table(
    pair: str, name: str, proto: str, software: str | None, runtime: str, number: str
) -> None:
    properties = {"id": ID, "pair": pair, "name": name, "proto": proto, "software": software}
    properties |= {"runtime": runtime, "kind": runtime, "memory": number, "cores": number}
    device = cleaned(properties, ["::1"], 1)
    assert device is not None
    assert device.address == "[::1]:1"
    for text in (device.name, device.software, device.runtime, device.kind):
        assert len(text) <= 64
        assert text.isprintable()
    assert device.pair == "" or 1 <= int(device.pair.removeprefix("[::1]:")) <= 65535
    assert 0 <= device.protocol < 100_000
    assert 0 <= device.memory_bytes <= 1 << 50
    assert 0 <= device.cores <= 1 << 16


@pytest.mark.parametrize("address", ["host", "host:", ":7434", "host:0", "host:65536", "host:x", ""])
def test_an_address_by_hand_is_host_and_port(address: str) -> None:
    with pytest.raises(UsageError, match="host:port"):
        at_address(address)
    assert at_address("192.0.2.7:7434").address == "192.0.2.7:7434"
