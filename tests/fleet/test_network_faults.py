"""Real devices behind a bad network: delay, loss, partition."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edvit_tf.bundle.reader import Bundle
from tests.fleet.processes import ThrowAwayFleet, command, device_fleet, elsewhere, started
from tests.net import FAR, NEAR, Network, Weather, network

pytestmark = [pytest.mark.netns, pytest.mark.fault]

DEADLINE = 2.0
# What this process takes for itself after the deadline, on a machine that does other things too.
SLACK = 0.5
BAD = Weather(delay_ms=100, jitter_ms=50, loss=0.05)


@pytest.fixture
def members(tmp_path: Path) -> ThrowAwayFleet:
    """Two devices that have joined, and have stopped since."""
    with device_fleet(["ash", "beech"], tmp_path) as made:
        return made


@contextmanager
def asking(
    net: Network, fleet: ThrowAwayFleet, bundle: Bundle, seconds: float, addresses: list[str]
) -> Iterator["subprocess.Popen[str]"]:
    arguments = [str(fleet.folder), str(bundle.path), str(seconds), *addresses]
    run = net.near(sys.executable, "-m", "tests.fleet.asking", *arguments)
    with subprocess.Popen(run, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            assert json.loads(process.stdout.readline()) == {"ready": True}
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize(
    "seconds", [30, pytest.param(600, marks=[pytest.mark.slow, pytest.mark.timeout(900)])]
)
def test_delay_and_loss_cost_few_answers_and_few_retries(
    members: ThrowAwayFleet, bundle: Bundle, seconds: int
) -> None:
    with network(Weather(), seed=3) as net:
        devices = [elsewhere(device, interface=FAR, under=net.far()) for device in members.devices]
        with (
            started(*devices) as addresses,
            asking(net, members, bundle, seconds, addresses) as process,
        ):
            net.change(BAD)
            assert process.stdout
            lines = [json.loads(line) for line in process.stdout]
    answered = [line for line in lines if line["answered"]]
    complete = [line for line in answered if line["answered"] == line["expected"]]
    assert max(line["seconds"] for line in lines) < DEADLINE + SLACK
    assert len(answered) / len(lines) >= 0.999, (len(answered), len(lines))
    assert len(complete) / len(lines) >= 0.9, (len(complete), len(lines))
    sent, least = sum(line["sent"] for line in lines), sum(line["answered"] for line in lines)
    assert least <= sent <= 1.1 * len(devices) * len(lines), (sent, len(lines))


def test_a_deploy_pauses_while_half_is_cut_off_and_ends_in_one_version_ten_seconds_after(
    members: ThrowAwayFleet, bundle: Bundle, newer: Bundle
) -> None:
    with network(Weather(), seed=5) as net:
        one, other = members.devices
        near, far = (
            elsewhere(one, interface=NEAR, under=net.near()),
            elsewhere(other, interface=FAR, under=net.far()),
        )
        with started(near, far) as addresses:
            where = [f"--address={address}" for address in addresses]
            run = [*net.near(*command("fleet", "deploy")), *where, "--state", str(members.folder)]
            began = time.monotonic()
            subprocess.run([*run, str(bundle.path)], check=True, capture_output=True, timeout=60)
            usual = time.monotonic() - began
            with subprocess.Popen([*run, str(newer.path)], stderr=subprocess.PIPE, text=True) as process:
                try:
                    assert process.stderr
                    assert process.stderr.readline().startswith(f"{one.name} has proved")
                    net.change(Weather(cut_there=True, cut_back=True))
                    time.sleep(8)
                    assert process.poll() is None
                    net.change(Weather())
                    healed = time.monotonic()
                    assert process.wait(60) == 0
                    assert "waiting: 1 of 2 devices cannot be reached" in process.stderr.read()
                finally:
                    process.kill()
                took = time.monotonic() - healed
            assert took <= max(10, 2 * usual), "a machine that is busy takes longer for any deploy"
            look = [
                *net.near(*command("fleet", "discover", "--json")),
                *where,
                "--state",
                str(members.folder),
            ]
            done = subprocess.run(look, check=True, capture_output=True, text=True, timeout=60)
    assert [row["bundle_version"] for row in json.loads(done.stdout)] == [newer.manifest.version] * 2


@pytest.mark.parametrize(
    "cut", [Weather(cut_there=True, cut_back=True), Weather(cut_there=True), Weather(cut_back=True)]
)
def test_a_partition_is_flagged_and_heals(members: ThrowAwayFleet, bundle: Bundle, cut: Weather) -> None:
    with network(Weather(), seed=4) as net:
        one, other = members.devices
        near, far = (
            elsewhere(one, interface=NEAR, under=net.near()),
            elsewhere(other, interface=FAR, under=net.far()),
        )
        with (
            started(near, far) as addresses,
            asking(net, members, bundle, 24, addresses) as process,
        ):
            time.sleep(2)
            net.change(cut)
            began = time.monotonic()
            time.sleep(8)
            net.change(Weather())
            healed = time.monotonic()
            assert process.stdout
            lines = [json.loads(line) for line in process.stdout]
    during = [
        line for line in lines if began + DEADLINE < line["at"] - line["seconds"] and line["at"] < healed
    ]
    assert len(during) > 20
    assert all((line["answered"], line["expected"]) == (1, 2) for line in during)
    assert max(line["seconds"] for line in lines) < DEADLINE + SLACK
    after = [line for line in lines if line["at"] > healed + 10]
    assert len(after) > 5
    assert all(line["answered"] == line["expected"] == 2 for line in after)
