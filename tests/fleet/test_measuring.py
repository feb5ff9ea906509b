"""An export's candidates on the devices of a fleet: who can measure, what they say, and what goes wrong."""

import asyncio
import contextlib
import sys
from collections.abc import Iterator

import pytest

from edvit_tf.bundle.reader import Bundle
from edvit_tf.cli.demo_devices import Program
from edvit_tf.errors import DeviceError, LinkError
from edvit_tf.fleet import Aggregator, Announced, deploy
from edvit_tf.fleet.hello import say_hello
from edvit_tf.fleet.measuring import ROUNDS, find_measurers, measure_on
from edvit_tf.rpc.edvit_pb2 import HelloReply
from tests.fleet import jvm
from tests.fleet.fakes import FakeDevice, Network, picture
from tests.fleet.processes import DeviceProcess, ThrowAwayFleet, device_fleet, started
from tests.fleet.serve.process import until

OLD = Program((sys.executable, "-m", "tests.fleet.old_device"))


def fakes(bundle: Bundle, *measures: list[int]) -> tuple[Network, list[FakeDevice]]:
    devices = [FakeDevice(number, bundle) for number in range(len(measures))]
    for device, times in zip(devices, measures, strict=True):
        device.measures = times
    return Network(*devices), devices


async def test_who_can_measure_is_asked_before_any_work(bundle: Bundle) -> None:
    network, (_, _, away) = fakes(bundle, [5], [], [5])
    away.alive = False
    able, others = await find_measurers(network.announced, connect=network.connect)
    assert [one.device.name for one in able] == ["fake-0"]
    assert others.keys() == {"fake-1", "fake-2"}
    assert "which cannot measure: update it there" in others["fake-1"]
    assert "the wire is cut" in others["fake-2"]


async def test_of_some_rounds_the_fastest_counts(bundle: Bundle) -> None:
    formats = bundle.manifest.submodels[0].formats
    turns = [900 + number for number in range(ROUNDS * len(formats))]
    network, (device,) = fakes(bundle, turns[::-1])
    said = await measure_on(network.announced, bundle, bundle.manifest.submodels[0], connect=network.connect)
    assert device.measured == ROUNDS * len(formats)
    last = {name: (900 + len(formats) - 1 - number) / 1000 for number, name in enumerate(formats)}
    assert {name: rows[0].ms for name, rows in said.items()} == last
    assert {rows[0].name for rows in said.values()} == {"fake-0"}


async def test_what_a_device_refuses_or_cannot_run_is_said(bundle: Bundle) -> None:
    network, (refusing, old) = fakes(bundle, [5], [7])
    refusing.refuses = "it would not fit"
    old.runtime = "tflite-runtime/2.14.0"
    submodel = bundle.manifest.submodels[0]
    said = await measure_on(network.announced, bundle, submodel, connect=network.connect)
    for variant in submodel.variants:
        first, second = said[variant.format]
        assert first.ms is None
        assert first.reason == f"fake-0 refused {submodel.id}: it would not fit"
        runs = "tflite-runtime" in variant.runtimes
        assert (second.ms, bool(second.reason)) == ((0.007, False) if runs else (None, True))
    assert any(rows[1].ms for rows in said.values())


async def test_a_device_that_installs_all_the_time_is_no_place_to_measure(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edvit_tf.fleet.transfer.FIRST_PAUSE_SECONDS", 0.001)
    network, (device,) = fakes(bundle, [5])

    async def busy(requests: object) -> object:
        del requests
        raise DeviceError("a sub-model is being installed: try again", code="device.busy")
        yield

    monkeypatch.setattr(device, "measure", busy)
    with pytest.raises(DeviceError, match="try again"):
        await measure_on(network.announced, bundle, bundle.manifest.submodels[0], connect=network.connect)


# Real processes from here on.


@pytest.fixture(scope="module", params=["python", pytest.param("jvm", marks=pytest.mark.android)])
def fleet(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ThrowAwayFleet]:
    """Two devices, one of which does not know how to measure."""
    program = jvm.program() if request.param == "jvm" else OLD
    with device_fleet(["new", "old"], tmp_path_factory.mktemp("devices"), programs={"old": program}) as made:
        yield made


def place(device: DeviceProcess) -> Announced:
    return Announced(device.address, device.id, device.name)


async def hello(fleet: ThrowAwayFleet, device: DeviceProcess) -> HelloReply:
    link = fleet.connect(device.address, device.id)
    try:
        return await say_hello(link, device.id)
    finally:
        await link.close()


@pytest.mark.fleet
async def test_a_device_of_before_is_met_with_one_sentence(fleet: ThrowAwayFleet) -> None:
    new, old = fleet.devices
    able, others = await find_measurers([place(new), place(old)], connect=fleet.connect)
    assert [one.device.name for one in able] == ["new"]
    assert others["old"].startswith("it runs edvit-tf ")
    assert others["old"].endswith("which cannot measure: update it there")


@pytest.mark.fleet
async def test_what_serves_answers_all_the_while(fleet: ThrowAwayFleet, bundle: Bundle) -> None:
    new, old = fleet.devices
    signed = fleet.sign(bundle)
    deployment = await deploy(signed, [place(new), place(old)], connect=fleet.connect)
    before = await hello(fleet, new)
    answers = []

    async def ask(aggregator: Aggregator) -> None:
        while True:
            answers.append(await aggregator.classify(picture(bundle, 0)))
            await asyncio.sleep(0.05)

    async with Aggregator(signed, deployment, connect=fleet.connect) as aggregator:
        await aggregator.classify(picture(bundle, 0))
        asking = asyncio.create_task(ask(aggregator))
        submodel = signed.manifest.submodels[0]
        said = await measure_on([place(new)], signed, submodel, connect=fleet.connect)
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking
    assert {rows[0].reason for rows in said.values()} == {""}
    assert all(rows[0].ms for rows in said.values())
    assert answers
    assert all(answer.complete for answer in answers)
    assert await hello(fleet, new) == before


@pytest.mark.fleet
@pytest.mark.fault
@pytest.mark.long
async def test_a_device_that_is_lost_while_it_measures(fleet: ThrowAwayFleet, bundle: Bundle) -> None:
    new, _ = fleet.devices
    signed = fleet.sign(bundle)
    submodel = signed.manifest.submodels[0]
    held = [holding.sha256 for holding in (await hello(fleet, new)).holdings]
    measuring = asyncio.create_task(measure_on([place(new)], signed, submodel, connect=fleet.connect))
    blobs = new.store / "scratch" / "blobs"
    await asyncio.to_thread(until, lambda: blobs.is_dir() and any(blobs.iterdir()), 20.0)
    new.kill()
    with pytest.raises(LinkError, match="new was lost while it measured") as caught:
        await measuring
    assert "run the same command again when it is back" in caught.value.message
    with started(new):
        assert list(blobs.iterdir()) == [], "it tidies up"
        assert [holding.sha256 for holding in (await hello(fleet, new)).holdings if holding.serving] == held
        said = await measure_on([place(new)], signed, submodel, connect=fleet.connect)
        assert all(rows[0].ms for rows in said.values())
