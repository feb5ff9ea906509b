"""Where devices stand when no aggregator runs: each is asked, also where it is announced."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from edvit_tf.bundle.reader import Bundle
from edvit_tf.fleet import Announced, standing
from edvit_tf.fleet.connect import with_keys
from edvit_tf.fleet.discover import DIALLED
from edvit_tf.fleet.keys import make_keys
from edvit_tf.fleet.standing import refresh, rows_of
from edvit_tf.fleet.state import FleetState
from tests.fleet.fakes import FakeDevice, Network, device_id


@pytest.fixture
def state(tmp_path: Path) -> Iterator[FleetState]:
    """A fleet of one device, which was last seen where nobody is now."""
    with FleetState(tmp_path) as opened:
        opened.enrol(Announced("9", device_id(0), "fake-0"))
        yield opened


def announce(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    async def discover(timeout: float) -> list[Announced]:
        del timeout
        return [Announced(address, device_id(0), "fake-0") for address in addresses]

    monkeypatch.setattr(standing, "discover", discover)


@pytest.mark.fault
@pytest.mark.parametrize("addresses", ["012", "102", "120", "210"])
def test_an_impostors_announcement_does_not_hide_where_the_device_answers(
    addresses: str, state: FleetState, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At "0" is the device, at "1" one that says it is another, at "2" nobody."""
    announce(monkeypatch, *addresses)
    network = Network(FakeDevice(0, bundle), FakeDevice(1, bundle))
    asyncio.run(refresh(state, network.connect))
    (row,) = rows_of(state.devices())
    assert (row.address, row.state, row.reason) == ("0", "up", "")


@pytest.mark.fault
def test_what_an_impostor_says_is_not_what_is_known_of_a_device(
    state: FleetState, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    announce(monkeypatch, "0")
    asyncio.run(refresh(state, Network(FakeDevice(1, bundle)).connect))
    (row,) = rows_of(state.devices())
    assert (row.address, row.state) == ("9", "down")
    assert "something else" not in row.reason


def test_a_device_that_dials_in_cannot_be_asked_when_no_aggregator_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    announce(monkeypatch)
    keys = make_keys(tmp_path)
    with FleetState(tmp_path) as state:
        state.enrol(Announced(f"{DIALLED}127.0.0.1:5000", device_id(0), "far"))
        asyncio.run(refresh(state, with_keys(keys)))
        (row,) = rows_of(state.devices())
    assert (row.link, row.state) == ("in", "down")
    assert "no aggregator runs" in row.reason
    assert "edvit-tf serve --listen" in row.reason
