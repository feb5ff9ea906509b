"""Three real device processes on this machine, found by zeroconf: deploy, infer, and bad luck."""

import asyncio
import json
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from edvit_tf.bundle.picture import open_picture, prepare
from edvit_tf.bundle.reader import Bundle
from edvit_tf.cli.trust import connect_in
from edvit_tf.fleet import Aggregator, Announced, Deployment, at_address, deploy, discover, survey, sync
from edvit_tf.fleet.discover import Browser
from edvit_tf.fleet.state import load, save
from tests.fleet.fakes import picture, possible_answers
from tests.fleet.processes import DeviceProcess, Program, ThrowAwayFleet, command, device_fleet, frozen
from tests.fleet.serve.process import until

pytestmark = pytest.mark.fleet

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def made(program: Program, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ThrowAwayFleet]:
    """Three devices that have joined, one of them of the kind that is tested."""
    folder = tmp_path_factory.mktemp("devices")
    with device_fleet(["ash", "beech", "cedar"], folder, programs={"beech": program}) as fleet:
        yield fleet


@pytest.fixture(scope="module")
def devices(made: ThrowAwayFleet) -> dict[str, DeviceProcess]:
    """The devices, by id."""
    return {device.id: device for device in made.devices}


@pytest.fixture(scope="module")
def state(made: ThrowAwayFleet, devices: dict[str, DeviceProcess], bundle: Bundle) -> Path:
    """A deployment that went through zeroconf."""

    async def work() -> Deployment:
        found = await find(devices)
        assert {device.name for device in found} == {"ash", "beech", "cedar"}
        for device in found:
            assert device.address == devices[device.id].address
            assert device.protocol == 1
            assert "/" in device.runtime
        return await deploy(signed, found, connect=made.connect)

    signed = made.sign(bundle)
    save(made.folder, signed, asyncio.run(work()))
    return made.folder


@pytest.fixture(scope="module")
def pictures(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for seed in range(3):
        image = picture(bundle, seed)
        Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(folder / f"{seed}.png")
    return folder


async def find(ids: Iterable[str], seconds: float = 10.0) -> list[Announced]:
    """Browse until all of these are found: other devices, of whoever uses this network, are left alone."""
    wanted, found, complete = set(ids), dict[str, Announced](), asyncio.Event()

    def on_found(device: Announced) -> None:
        if device.id in wanted:
            found[device.id] = device
        if found.keys() == wanted:
            complete.set()

    async with Browser(on_found), asyncio.timeout(seconds):
        await complete.wait()
    return list(found.values())


def edvit(*arguments: str | Path) -> tuple[int, list[object]]:
    """Exit status and the JSON lines on standard output."""
    done = subprocess.run(
        command(*arguments, "--json"), capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def holder(devices: dict[str, DeviceProcess], state: Path) -> tuple[DeviceProcess, str]:
    """A device that serves, and its sub-model."""
    _, deployment = load(state)
    submodel, device = min(deployment.assignment.items())
    return devices[device], submodel


def test_the_verbs_see_the_fleet(devices: dict[str, DeviceProcess], state: Path, bundle: Bundle) -> None:
    status, (rows,) = edvit("fleet", "status", "--state", state)
    assert status == 0
    assert isinstance(rows, list)
    assert {row["id"] for row in rows} == devices.keys()
    held = [submodel for row in rows for submodel in row["submodels"]]
    assert sorted(held) == [submodel.id for submodel in bundle.manifest.submodels]
    for row in rows:
        assert list(row) == [
            "id", "name", "address", "state", "reason", "protocol", "software", "runtime", "accelerator",
            "accelerator_reason", "bundle_version", "memory_mb", "submodels", "kind", "cores", "since",
            "link", "codec", "sent_bytes",
        ]  # fmt: skip
        assert (row["state"], row["reason"]) == ("up", "")
        assert row["kind"].endswith(platform.system())
        assert row["cores"] >= 1
        assert row["address"] == devices[row["id"]].address
        assert row["bundle_version"] == (bundle.manifest.version if row["submodels"] else 0)
    status, (found,) = edvit("fleet", "discover", "--timeout", "2", "--state", state)
    assert isinstance(found, list)
    assert devices.keys() <= {row["id"] for row in found}


def test_the_fleet_answers_as_one_process_does(state: Path, bundle: Bundle, pictures: Path) -> None:
    status, through_fleet = edvit("infer", "--state", state, pictures)
    assert status == 0
    status, in_process = edvit("infer", "--local", bundle.path, pictures)
    assert status == 0
    assert len(through_fleet) == len(in_process) == 3
    for one, other in zip(through_fleet, in_process, strict=True):
        assert isinstance(one, dict)
        assert isinstance(other, dict)
        assert one.pop("milliseconds") > 0
        assert other.pop("milliseconds") > 0
        possible = possible_answers(bundle, prepare(open_picture(Path(one["image"])), bundle.manifest.input))
        assert one["probabilities"] in possible
        assert other["probabilities"] == possible[0], "this process runs the first variants"
        for said in (one, other):
            probabilities = said.pop("probabilities")
            assert said.pop("label") == bundle.manifest.classes[probabilities.index(max(probabilities))]
        assert one == other
        assert one["complete"] is True
        assert list(one) == [
            "image", "complete", "answered", "expected", "missing", "weak_classes",
        ]  # fmt: skip


@pytest.mark.fault
def test_a_killed_device_is_flagged_and_taken_back_at_another_port(
    devices: dict[str, DeviceProcess], state: Path
) -> None:
    bundle, deployment = load(state)
    device, submodel = holder(devices, state)
    image = picture(bundle)
    with sync.Aggregator(bundle, deployment, connect=connect_in(state)) as fleet:
        before = fleet.classify(image)
        assert before.complete
        device.kill()
        start = time.monotonic()
        partial = fleet.classify(image)
        assert time.monotonic() - start < 2.2
        assert (partial.missing, partial.answered) == ((submodel,), partial.expected - 1)
        assert set(partial.weak_classes) == set(bundle.manifest.submodel(submodel).classes)
        (row,) = [row for row in fleet.status() if row.id == device.id]
        assert row.state == "down"
        old_port = device.port
        device.start()
        assert device.port != old_port
        assert fleet.complete(10.0)
        after = fleet.classify(image)
        assert after.complete
        assert after.probabilities == before.probabilities


@pytest.mark.fault
def test_a_frozen_device_costs_no_more_than_the_deadline(
    devices: dict[str, DeviceProcess], state: Path
) -> None:
    bundle, deployment = load(state)
    device, submodel = holder(devices, state)
    image = picture(bundle)
    with sync.Aggregator(bundle, deployment, deadline=1.0, connect=connect_in(state)) as fleet:
        assert fleet.complete(10.0)
        with frozen(device):
            start = time.monotonic()
            partial = fleet.classify(image)
            assert time.monotonic() - start < 1.3
            assert partial.missing == (submodel,)
            start = time.monotonic()
            assert not fleet.classify(image).complete
            assert time.monotonic() - start < 0.5
        assert fleet.complete(10.0)
        assert fleet.classify(image).complete


@pytest.mark.fault
def test_a_frozen_device_is_noticed_without_any_request(
    devices: dict[str, DeviceProcess], state: Path
) -> None:
    bundle, deployment = load(state)
    device, _ = holder(devices, state)

    async def story() -> None:
        async with Aggregator(bundle, deployment, connect=connect_in(state)) as fleet:
            assert await fleet.complete(10.0)
            with frozen(device):
                await asyncio.sleep(5.5)
                (row,) = [row for row in fleet.status() if row.id == device.id]
                assert row.state == "down"
                assert "did not answer" in row.reason
            assert await fleet.complete(10.0)

    asyncio.run(story())


@pytest.mark.fault
def test_a_device_with_an_empty_store_is_filled_again(devices: dict[str, DeviceProcess], state: Path) -> None:
    bundle, deployment = load(state)
    device, submodel = holder(devices, state)
    with sync.Aggregator(bundle, deployment, connect=connect_in(state)) as fleet:
        assert fleet.complete(10.0)
        device.kill()
        shutil.rmtree(device.store / "blobs")
        device.start()
        # For a moment its port may still be taken for the one that refused.
        until(lambda: fleet.classify(picture(bundle)).complete, 10.0)
    (row,) = asyncio.run(survey([at_address(device.address)], connect=connect_in(state)))
    assert row.submodels == (submodel,)


def test_a_second_process_on_a_store_or_port_is_refused(
    devices: dict[str, DeviceProcess], tmp_path: Path
) -> None:
    device = next(iter(devices.values()))
    assert device.name == "ash"
    status, (error,) = edvit("device", "run", "--store", device.store, "--port", "0")
    assert (status, code(error)) == (1, "device.store_in_use")
    status, (error,) = edvit("device", "run", "--store", tmp_path, "--port", str(device.port))
    assert (status, code(error)) == (1, "link.port")


@pytest.mark.parametrize("kept", [True, False])
def test_the_script_does_it_all(
    devices: dict[str, DeviceProcess], state: Path, bundle: Bundle, pictures: Path, *, kept: bool
) -> None:
    # By address: the script would take whichever devices it finds, also somebody's real ones.
    options = [f"--state={state}", *(f"--address={device.address}" for device in devices.values())]
    script = [sys.executable, str(ROOT / "tools" / "aggregator.py"), str(bundle.path), str(pictures)]
    script += options if kept else []
    done = subprocess.run(script, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    number = len(bundle.manifest.submodels)
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert [(line[0], line[3]) for line in lines] == [(f"{i}.png", f"{number} of {number}") for i in range(3)]
    assert all(line[1] in bundle.manifest.classes for line in lines)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_device_ends_as_it_is_told_and_says_goodbye(
    tmp_path: Path, program: Program, number: signal.Signals, status: int
) -> None:
    with device_fleet(["Küche 1"], tmp_path, programs={"Küche 1": program}) as made:
        (device,) = made.devices
        assert asyncio.run(find([device.id]))
        start = time.monotonic()
        assert device.stop(number) == status
        assert time.monotonic() - start < 5.0
        assert "Traceback" not in device.log()
        assert not any(found.id == device.id for found in asyncio.run(discover(1.0)))


def code(error: object) -> str:
    assert isinstance(error, dict)
    return str(error["error"]["code"])
