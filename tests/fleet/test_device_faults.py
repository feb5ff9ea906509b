"""What happens to a device: killed in the middle of an answer, frozen for a minute, slow, without a disk."""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edvit_tf.bundle.reader import Bundle
from edvit_tf.cli.trust import connect_in
from edvit_tf.fleet import Announced, State, at_address, deploy, sync
from edvit_tf.fleet.state import load, save
from tests.fleet.fakes import picture, possible_answers
from tests.fleet.processes import (
    DeviceProcess,
    Program,
    ThrowAwayFleet,
    command,
    device_fleet,
    frozen,
    slowed,
)

pytestmark = [pytest.mark.fleet, pytest.mark.fault]

DEADLINE = 2.0
# What this process takes for itself after the deadline, on a machine that does other things too.
SLACK = 0.5
DOWN_SECONDS = 6.0
BACK_SECONDS = 10.0


@pytest.fixture(scope="module")
def made(
    program: Program, bundle: Bundle, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ThrowAwayFleet]:
    """Two devices, each with a sub-model."""
    names = ["ash", "beech"]
    kinds = dict.fromkeys(names, program)
    with device_fleet(names, tmp_path_factory.mktemp("devices"), programs=kinds) as fleet:
        signed = fleet.sign(bundle)
        found = [Announced(device.address, device.id, device.name) for device in fleet.devices]
        save(fleet.folder, signed, asyncio.run(deploy(signed, found, connect=fleet.connect)))
        yield fleet


@pytest.fixture
def fleet(made: ThrowAwayFleet) -> Iterator[sync.Aggregator]:
    with sync.Aggregator(*load(made.folder), connect=connect_in(made.folder), deadline=DEADLINE) as opened:
        assert opened.complete(BACK_SECONDS)
        yield opened


def state_of(fleet: sync.Aggregator, device: DeviceProcess) -> State:
    (row,) = [row for row in fleet.status() if row.id == device.id]
    return State(row.state)


def seconds_until(fleet: sync.Aggregator, device: DeviceProcess, state: State, start: float) -> float:
    while state_of(fleet, device) is not state:
        assert time.monotonic() - start < 60
        time.sleep(0.05)
    return time.monotonic() - start


def test_a_device_that_is_killed_in_the_middle_of_an_answer(
    made: ThrowAwayFleet, fleet: sync.Aggregator, bundle: Bundle
) -> None:
    device = made.devices[0]
    submodels = load(made.folder)[1].submodels_of(device.id)
    before = fleet.classify(picture(bundle))
    assert before.complete
    device.send(signal.SIGSTOP)  # so that the question is certainly under way
    with ThreadPoolExecutor() as pool:
        start = time.monotonic()
        asked = pool.submit(fleet.classify, picture(bundle))
        time.sleep(0.3)
        killed = time.monotonic()
        device.kill()
        answer = asked.result()
    assert time.monotonic() - start < DEADLINE + SLACK
    assert (answer.missing, answer.answered) == (submodels, answer.expected - len(submodels))
    assert seconds_until(fleet, device, State.DOWN, killed) <= DOWN_SECONDS
    device.start()
    assert seconds_until(fleet, device, State.UP, time.monotonic()) <= BACK_SECONDS
    assert fleet.classify(picture(bundle)).probabilities == before.probabilities


@pytest.mark.long
def test_a_device_that_is_frozen_for_a_minute(
    made: ThrowAwayFleet, fleet: sync.Aggregator, bundle: Bundle
) -> None:
    device = made.devices[1]
    with frozen(device):
        start = time.monotonic()
        seeds = iter(range(10_000))
        down = False
        while time.monotonic() - start < 60:
            began = time.monotonic()
            answer = fleet.classify(picture(bundle, next(seeds)))
            took = time.monotonic() - began
            assert not answer.complete
            assert took < DEADLINE + SLACK
            if not down and state_of(fleet, device) is State.DOWN:
                down = True
                assert time.monotonic() - start <= DOWN_SECONDS
            time.sleep(0.05)
        assert down
    # What it was asked a minute ago it answers now, to nobody: every answer is about its own picture.
    thawed = time.monotonic()
    complete = 0
    while time.monotonic() - thawed < BACK_SECONDS:
        image = picture(bundle, next(seeds))
        answer = fleet.classify(image)
        if answer.complete:
            complete += 1
            assert list(answer.probabilities) in possible_answers(bundle, image)
    assert complete > 10


def test_a_device_ten_times_slower_than_it_said_is_waited_for_until_the_deadline_and_no_longer(
    made: ThrowAwayFleet, bundle: Bundle
) -> None:
    device = made.devices[1]
    submodels = load(made.folder)[1].submodels_of(device.id)
    short = 0.25
    with sync.Aggregator(*load(made.folder), connect=connect_in(made.folder), deadline=short) as fleet:
        assert fleet.complete(BACK_SECONDS)
        with slowed(device, 10, slice_seconds=0.05):
            answers = []
            for seed in range(20):
                time.sleep(0.05)  # or all of them are answered in one of its slices
                began = time.monotonic()
                answers.append((fleet.classify(picture(bundle, seed)), time.monotonic() - began))
        assert max(seconds for _, seconds in answers) < short + SLACK
        assert all(answer.complete or answer.missing == submodels for answer, _ in answers)
        assert any(not answer.complete for answer, _ in answers), "it stops for longer than that"
        assert fleet.complete(BACK_SECONDS)
        assert fleet.classify(picture(bundle)).complete


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder for one device's store, on a disk of four megabytes."""
    store = tmp_path / "ash"
    store.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m,mode=700", "tmpfs", str(store)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        if os.environ.get("CI") == "true":
            pytest.fail("a small disk needs the privilege to mount one: give it to CI")
        pytest.skip("needs the privilege to mount a small disk")
    try:
        yield store
    finally:
        subprocess.run(["umount", str(store)], check=True)


@pytest.mark.netns
def test_a_disk_that_is_full_refuses_the_deploy_and_the_old_version_serves(
    program: Program, small_disk: Path, bundle: Bundle, newer: Bundle, tmp_path: Path
) -> None:
    with device_fleet(["ash"], tmp_path, programs={"ash": program}) as made:
        (device,) = made.devices
        signed = made.sign(bundle)
        found = [at_address(device.address)]
        save(made.folder, signed, asyncio.run(deploy(signed, found, connect=made.connect)))
        filler = small_disk / "filler"
        with filler.open("wb") as file:
            while True:
                try:
                    os.write(file.fileno(), bytes(4096))
                except OSError:
                    break
        kept = {path.name for path in (small_disk / "blobs").iterdir()}
        run = command("fleet", "deploy", newer.path, "--state", made.folder, f"--address={device.address}")
        refused = subprocess.run(run, capture_output=True, text=True, timeout=60, check=False)
        assert refused.returncode == 1
        assert "is full" in refused.stderr, refused.stderr
        assert {path.name for path in (small_disk / "blobs").iterdir()} == kept, "no temporary file is left"
        with sync.Aggregator(*load(made.folder), connect=made.connect) as fleet:
            assert fleet.complete(BACK_SECONDS)
            assert fleet.classify(picture(bundle)).complete
        filler.unlink()
        subprocess.run(run, check=True, capture_output=True, timeout=60)
        assert load(made.folder)[0].manifest.version == newer.manifest.version
