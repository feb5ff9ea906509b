"""Wall clocks that jump, are wrong by a year, or let a year pass: in real processes, whose clocks we move."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from edvit_tf.bundle.reader import Bundle
from edvit_tf.device.membership import load_membership
from edvit_tf.device.store import Store
from tests.fleet.processes import DeviceProcess, ThrowAwayFleet, command, device_fleet, elsewhere, started
from tests.wall_clock import WallClock

pytestmark = [pytest.mark.fleet, pytest.mark.fault]

JUMP = timedelta(seconds=288)
YEAR = timedelta(days=366)


@pytest.fixture
def members(tmp_path: Path) -> ThrowAwayFleet:
    """Two devices that have joined while every clock was right, and have stopped since."""
    with device_fleet(["ash", "beech"], tmp_path) as made:
        return made


@contextmanager
def aggregator(
    clock: WallClock, fleet: ThrowAwayFleet, bundle: Bundle, addresses: list[str]
) -> Iterator[Iterator[Any]]:
    """The lines of an aggregator that runs under a clock, from the moment at which it is ready."""
    arguments = [str(fleet.folder), str(bundle.path), *addresses]
    run = [*clock.under, sys.executable, "-m", "tests.fleet.aging", *arguments]
    with subprocess.Popen(run, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            assert json.loads(process.stdout.readline()) == {"ready": True}
            yield map(json.loads, process.stdout)
        finally:
            process.kill()


@pytest.mark.parametrize("whose", ["a device's", "the aggregator's"])
def test_a_clock_that_jumps_costs_no_answer(
    members: ThrowAwayFleet, bundle: Bundle, tmp_path: Path, whose: str
) -> None:
    moved, right = WallClock(tmp_path / "moved"), WallClock(tmp_path / "right")
    mine, theirs = (right, moved) if whose == "a device's" else (moved, right)
    devices = [elsewhere(device, under=theirs.under) for device in members.devices]
    with (
        started(*devices) as addresses,
        aggregator(mine, members, bundle, addresses) as lines,
    ):
        said = []
        for by in (timedelta(0), JUMP, -JUMP, timedelta(0)):
            moved.move(by)
            said += [next(lines) for _ in range(5)]
    assert not [line for line in said if line["errors"] or not line["complete"]]


@pytest.mark.parametrize("by", [YEAR, -YEAR])
def test_a_clock_that_is_wrong_by_a_year_is_an_error_that_says_clock(
    members: ThrowAwayFleet, tmp_path: Path, by: timedelta
) -> None:
    clock, right = WallClock(tmp_path / "clock"), WallClock(tmp_path / "right")
    device = elsewhere(members.devices[0], under=clock.under)
    with started(device) as (address,):
        assert status(right, members, address) == "up"
        assert "clock" in status_with(clock, by, right, members, address)
        assert "clock" in status_with(clock, by, clock, members, address)
        clock.move(by)
    # The device says so as well, where it is looked at.
    with started(device):
        assert "set the clock if that is wrong" in device.log()
    clock.move(timedelta(0))
    with started(device) as (address,):
        assert status(clock, members, address) == "up", "with the right time nothing is left of it"


def status_with(clock: WallClock, by: timedelta, mine: WallClock, fleet: ThrowAwayFleet, address: str) -> str:
    """What `fleet discover` says while `clock` is wrong."""
    clock.move(by)
    try:
        return status(mine, fleet, address)
    finally:
        clock.move(timedelta(0))


def status(clock: WallClock, fleet: ThrowAwayFleet, address: str) -> str:
    """The state of a device or why it has none, as a verb that runs under a clock says it."""
    verb = command("fleet", "discover", "--json", "--state", fleet.folder, "--address", address)
    done = subprocess.run([*clock.under, *verb], capture_output=True, text=True, timeout=60, check=False)
    said = json.loads(done.stdout)
    if isinstance(said, dict):
        return str(said["error"]["message"])
    (row,) = said
    return str(row["reason"] or row["state"])


@pytest.mark.long
def test_two_years_pass_and_every_certificate_is_renewed_without_a_drop(
    members: ThrowAwayFleet, bundle: Bundle, tmp_path: Path
) -> None:
    clock = WallClock(tmp_path / "clock")
    devices = [elsewhere(device, under=clock.under) for device in members.devices]
    days, step = 0, 30
    with (
        started(*devices) as addresses,
        aggregator(clock, members, bundle, addresses) as lines,
    ):
        said = [next(lines)]
        while days < 2 * 366:
            days += step
            clock.move(timedelta(days=days))
            # A round of renewing or more fits between two steps, and there are 90 days to do it.
            said += [next(lines) for _ in range(3)]
    assert not [line for line in said if line["errors"] or not line["complete"]]
    first, last = said[0], said[-1]
    assert passed(first["date"], last["date"]) > timedelta(days=2 * 365)
    assert passed(last["date"], last["own"]) > timedelta(days=80)
    for device in devices:
        assert passed(last["date"], ends(device)) > timedelta(days=80)


def passed(begin: str, end: str) -> timedelta:
    return datetime.fromisoformat(end) - datetime.fromisoformat(begin)


def ends(device: DeviceProcess) -> str:
    """When the certificate ends that a device has written down."""
    store = Store(device.store)
    try:
        membership = load_membership(store)
    finally:
        store.close()
    assert membership is not None
    return membership.certificate.not_valid_after_utc.isoformat()
