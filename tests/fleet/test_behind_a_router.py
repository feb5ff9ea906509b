"""Devices that nobody can call, on a slow and lossy network: they dial out, and all the rest is as ever."""

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from edvit_tf.bundle.reader import Bundle
from edvit_tf.cli.demo_devices import read_line
from edvit_tf.fleet.discover import DIALLED, Announced
from edvit_tf.fleet.state import FleetState
from tests.fleet.fakes import picture
from tests.fleet.processes import DeviceProcess, command, device_fleet, elsewhere, started
from tests.net import FAR, NEAR, Network, Weather, network

pytestmark = [pytest.mark.netns, pytest.mark.fault, pytest.mark.timeout(400)]

WEATHER = Weather(delay_ms=40, jitter_ms=20, loss=0.02, closed_there=True)
DIAL = f"{NEAR}:7436"


def verb(net: Network, *arguments: str | Path) -> Any:
    """The last line of JSON that a verb prints where the aggregator is."""
    run = net.near(*command(*arguments, "--json"))
    done = subprocess.run(run, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@contextmanager
def serving(net: Network, state: Path, log: Path) -> Iterator[None]:
    run = command("serve", "--state", state, "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--json")
    with (
        log.open("wb") as errors,
        subprocess.Popen(net.near(*run, "--listen", DIAL), stdout=subprocess.PIPE, stderr=errors) as process,
    ):
        assert process.stdout
        try:
            assert json.loads(read_line(process.stdout, 60))["inward"] == DIAL
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0


def until(condition: Callable[[], bool], seconds: float) -> None:
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < seconds, "it has not come to that in time"
        time.sleep(0.2)


def test_devices_that_cannot_be_called_are_deployed_to_asked_and_back_after_a_partition(
    bundle: Bundle, tmp_path: Path
) -> None:
    with device_fleet(["ash", "beech"], tmp_path) as made:
        pass
    path = tmp_path / "picture.png"
    image = picture(bundle)
    Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(path)
    state = made.folder

    def up() -> bool:
        with FleetState(state) as opened:
            return all(device.state in ("up", "slow") for device in opened.devices())

    def down() -> bool:
        with FleetState(state) as opened:
            return all(device.state == "down" for device in opened.devices())

    with network(WEATHER, seed=5) as net:
        called = elsewhere(made.devices[0], interface=FAR, under=net.far())
        with started(called) as (address,):
            rows = verb(net, "fleet", "discover", "--address", address, "--devices", "1", "--state", state)
            assert [row["state"] for row in rows] == ["down"], "nobody gets through"
        behind = [
            DeviceProcess(
                device.name, device.store.parent, interface=FAR, under=net.far(), options=("--dial", DIAL)
            )
            for device in made.devices
        ]
        with FleetState(state) as opened:
            for device in made.devices:
                opened.enrol(Announced(f"{DIALLED}{DIAL}", device.id, device.name))
        with started(*behind):
            options = ["--listen", DIAL, "--timeout", "20", "--devices", "2"]
            placed = verb(net, "fleet", "deploy", bundle.path, "--state", state, *options)
            assert len(placed["placement"]) == len(bundle.manifest.submodels)
            assert {row["address"].startswith(DIALLED) for row in placed["placement"]} == {True}
            with serving(net, state, tmp_path / "log"):
                until(up, 20)
                answers = [verb(net, "infer", path, "--state", state) for _ in range(5)]
                assert sum(answer["complete"] for answer in answers) >= 4
                net.change(Weather(cut_there=True, cut_back=True))
                until(down, 10)
                net.change(WEATHER)
                until(up, 30)
                assert verb(net, "infer", path, "--state", state)["answered"] > 0
                log = verb(net, "fleet", "logs", "ash", "--last", "1", "--state", state)
                assert log["name"] == "ash"
