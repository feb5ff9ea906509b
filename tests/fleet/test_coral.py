"""A group fails over from a Coral to a Pi: another variant of the sub-model answers for it."""

import asyncio
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edvit_tf.bundle.manifest import Submodel
from edvit_tf.bundle.reader import Bundle, open_bundle
from edvit_tf.bundle.writer import write_manifest
from edvit_tf.cli.demo_devices import Program
from edvit_tf.fleet import Announced, deploy
from edvit_tf.fleet.hello import say_hello
from edvit_tf.fleet.keeper import Keeper
from edvit_tf.fleet.state import FleetState
from edvit_tf.plan.failover import Policy
from tests.fleet.fakes import picture
from tests.fleet.processes import DeviceProcess, ThrowAwayFleet, device_fleet

CORAL = Program((sys.executable, "-m", "tests.fleet.coral_device"))


def for_both(submodel: Submodel) -> Submodel:
    """What is f32 in the golden bundle stands for what an Edge TPU runs."""
    others = [variant for variant in submodel.variants if variant.format != "f32"]
    made = replace(submodel.variant("f32"), format="edgetpu", target="coral")
    return replace(submodel, variants=(*others, made))


@pytest.fixture
def both(bundle: Bundle, tmp_path: Path) -> Bundle:
    folder = tmp_path / "both"
    shutil.copytree(bundle.path, folder)
    manifest = replace(bundle.manifest, submodels=tuple(map(for_both, bundle.manifest.submodels)))
    write_manifest(folder, manifest)
    return open_bundle(folder)


async def formats(fleet: ThrowAwayFleet, device: DeviceProcess) -> dict[str, str]:
    """What a device serves, by sub-model."""
    link = fleet.connect(device.address, device.id)
    try:
        hello = await say_hello(link, device.id)
    finally:
        await link.close()
    return {holding.submodel: holding.format for holding in hello.holdings if holding.serving}


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[ThrowAwayFleet]:
    with device_fleet(["coral", "pi-1", "pi-2"], tmp_path / "devices", programs={"coral": CORAL}) as made:
        yield made


@pytest.mark.fleet
@pytest.mark.fault
@pytest.mark.long
async def test_a_group_fails_over_from_a_coral_to_a_pi(fleet: ThrowAwayFleet, both: Bundle) -> None:
    coral, *others = fleet.devices
    signed = fleet.sign(both)
    found = [Announced(device.address, device.id, device.name) for device in fleet.devices]
    deployment = await deploy(signed, found, connect=fleet.connect)
    on_coral = await formats(fleet, coral)
    assert on_coral
    assert set(on_coral.values()) == {"edgetpu"}
    policy = Policy(grace=1.0)
    with FleetState(fleet.folder) as state:
        state.deploy(signed, deployment)
        async with Keeper(state, fleet.connect, deadline=2.0, browse=False, policy=policy) as keeper:
            assert await keeper.aggregator.complete(20.0)
            assert (await keeper.aggregator.classify(picture(both))).complete
            coral.kill()
            async with asyncio.timeout(60.0):
                while coral.id in map(keeper.aggregator.deployment.holder, on_coral):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            assert (await keeper.aggregator.classify(picture(both))).complete
    held: dict[str, str] = {}
    for device in others:
        held |= await formats(fleet, device)
    assert held == dict.fromkeys(deployment.assignment, "int8")
