"""A device process that stalls in the middle of an answer, while another holds the same sub-model."""

import asyncio
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from edvit_tf.bundle.reader import Bundle, open_bundle
from edvit_tf.bundle.writer import write_manifest
from edvit_tf.cli.trust import connect_in
from edvit_tf.fleet import Aggregator, Announced, Answer, at_address, deploy
from edvit_tf.fleet.again import Again
from tests.fleet.fakes import picture
from tests.fleet.processes import device_fleet, frozen

pytestmark = [pytest.mark.fleet, pytest.mark.fault]

DEADLINE = 2.0
UP_SECONDS = 20.0


def test_the_other_holder_of_a_sub_model_answers_by_the_deadline(bundle: Bundle, tmp_path: Path) -> None:
    bundle = in_one_format(bundle, tmp_path / "bundle")
    image = picture(bundle)
    names = [f"device-{number}" for number in range(len(bundle.manifest.submodels) + 1)]

    with device_fleet(names, tmp_path) as fleet:
        signed = fleet.sign(bundle)
        found = [at_address(device.address) for device in fleet.devices]
        placed = asyncio.run(deploy(signed, found[:-1], connect=fleet.connect))
        stand_in = fleet.devices[-1]
        # As after a failover: another device holds what the first one has at home, and both have it.
        submodel, home = next(iter(placed.assignment.items()))
        everybody = (*placed.devices, Announced(stand_in.address, stand_in.id, stand_in.name))
        deployment = replace(placed, devices=everybody, moved={submodel: stand_in.id})
        said: list[Again] = []

        async def story() -> tuple[Answer, Answer, float]:
            async with Aggregator(
                signed,
                deployment,
                connect=connect_in(fleet.folder),
                deadline=DEADLINE,
                browse=False,
                on_again=said.append,
            ) as aggregator:
                assert await aggregator.complete(UP_SECONDS)
                before = [await aggregator.classify(image) for _ in range(20)][-1]
                said.clear()
                with frozen(stand_in):
                    start = time.monotonic()
                    answer = await aggregator.classify(image)
                    return before, answer, time.monotonic() - start

        before, answer, took = asyncio.run(story())
    assert before.complete
    assert who(before, submodel) == {stand_in.id}
    assert answer.complete
    assert took < DEADLINE
    assert Again.HEDGE in said
    assert who(answer, submodel) == {home}
    assert {part.device: part.error.code for part in answer.devices if part.error} == {
        stand_in.id: "device.slower"
    }
    assert answer.probabilities == before.probabilities


def in_one_format(bundle: Bundle, folder: Path) -> Bundle:
    """The bundle with the first variant alone: each device takes the one that is fastest on it."""
    shutil.copytree(bundle.path, folder)
    submodels = tuple(replace(each, variants=each.variants[:1]) for each in bundle.manifest.submodels)
    write_manifest(folder, replace(bundle.manifest, submodels=submodels))
    return open_bundle(folder)


def who(answer: Answer, submodel: str) -> set[str]:
    """The devices that answered for a sub-model."""
    return {part.device for part in answer.devices if submodel in part.features}
