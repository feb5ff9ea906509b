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
from tests.fleet.processes import command
from tests.net import FAR, NEAR, Network, Weather, network

pytestmark = [pytest.mark.netns, pytest.mark.fault]

DEADLINE = 2.0
# What this process takes for itself after the deadline, on a machine that does other things too.
SLACK = 0.5
BAD = Weather(delay_ms=100, jitter_ms=50, loss=0.05)


@contextmanager
def device(run: list[str], address: str, store: Path) -> Iterator[str]:
    """A device in a namespace; its address and port."""
    with (
        (store.parent / f"{store.name}.log").open("wb") as log,
        subprocess.Popen(run, stdout=subprocess.PIPE, stderr=log) as process,
    ):
        assert process.stdout
        try:
            yield f"{address}:{json.loads(process.stdout.readline())['port']}"
        finally:
            process.kill()


def options(address: str, store: Path) -> list[str]:
    where = ["--interface", address, "--port", "0", "--insecure"]
    return command("device", "run", "--json", "--name", store.name, "--store", store, *where)


@contextmanager
def asking(
    net: Network, bundle: Bundle, seconds: float, addresses: list[str]
) -> Iterator["subprocess.Popen[str]"]:
    run = net.near(sys.executable, "-m", "tests.fleet.asking", str(bundle.path), str(seconds), *addresses)
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
def test_delay_and_loss_cost_few_answers(bundle: Bundle, tmp_path: Path, seconds: int) -> None:
    with (
        network(Weather(), seed=3) as net,
        device(net.far(*options(FAR, tmp_path / "ash")), FAR, tmp_path / "ash") as one,
        device(net.far(*options(FAR, tmp_path / "beech")), FAR, tmp_path / "beech") as other,
        asking(net, bundle, seconds, [one, other]) as process,
    ):
        net.change(BAD)
        assert process.stdout
        lines = [json.loads(line) for line in process.stdout]
    answered = [line for line in lines if line["answered"]]
    complete = [line for line in answered if line["answered"] == line["expected"]]
    assert max(line["seconds"] for line in lines) < DEADLINE + SLACK
    assert len(answered) / len(lines) >= 0.999, (len(answered), len(lines))
    assert len(complete) / len(lines) >= 0.9, (len(complete), len(lines))


@pytest.mark.parametrize(
    "cut", [Weather(cut_there=True, cut_back=True), Weather(cut_there=True), Weather(cut_back=True)]
)
def test_a_partition_is_flagged_and_heals(bundle: Bundle, tmp_path: Path, cut: Weather) -> None:
    with (
        network(Weather(), seed=4) as net,
        device(net.near(*options(NEAR, tmp_path / "near")), NEAR, tmp_path / "near") as one,
        device(net.far(*options(FAR, tmp_path / "far")), FAR, tmp_path / "far") as other,
        asking(net, bundle, 24, [one, other]) as process,
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
