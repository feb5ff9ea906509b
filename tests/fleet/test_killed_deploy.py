"""In the middle of a deploy the aggregator is killed, or half of the devices are lost: then it goes on."""

import asyncio
import subprocess
import time
from pathlib import Path

import pytest

from edvit_tf.bundle.reader import Bundle
from edvit_tf.fleet import at_address, deploy, survey, sync
from edvit_tf.fleet.state import load, save
from tests.fleet.fakes import picture
from tests.fleet.processes import command, device_fleet, frozen

pytestmark = [pytest.mark.fleet, pytest.mark.fault]


def test_a_killed_deploy_changes_nothing_and_goes_on(bundle: Bundle, newer: Bundle, tmp_path: Path) -> None:
    with device_fleet(["ash", "beech"], tmp_path / "devices") as made:
        addresses = [device.address for device in made.devices]
        found = [at_address(address) for address in addresses]
        state = made.folder
        signed = made.sign(bundle)
        save(state, signed, asyncio.run(deploy(signed, found, connect=made.connect)))
        options = [f"--address={address}" for address in addresses]
        run = command("fleet", "deploy", newer.path, "--state", state, *options)
        with subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr
            assert "has proved" in process.stderr.readline()
            process.kill()
        kept, deployment = load(state)
        assert kept.manifest.version == bundle.manifest.version
        with sync.Aggregator(kept, deployment, connect=made.connect) as fleet:
            assert fleet.complete(10.0)
            assert fleet.classify(picture(bundle)).complete
        subprocess.run(run, check=True, capture_output=True, timeout=60)
        kept, deployment = load(state)
        assert kept.manifest.version == newer.manifest.version
        rows = asyncio.run(survey(found, connect=made.connect))
        assert {row.bundle_version for row in rows} == {newer.manifest.version}
        with sync.Aggregator(kept, deployment, connect=made.connect) as fleet:
            assert fleet.complete(10.0)
            assert fleet.classify(picture(bundle)).complete


def test_a_deploy_waits_for_half_of_the_devices_and_then_goes_on(
    bundle: Bundle, newer: Bundle, tmp_path: Path
) -> None:
    with device_fleet(["ash", "beech"], tmp_path / "devices") as made:
        addresses = [device.address for device in made.devices]
        state, signed = made.folder, made.sign(bundle)
        found = [at_address(address) for address in addresses]
        save(state, signed, asyncio.run(deploy(signed, found, connect=made.connect)))
        run = command(
            "fleet", "deploy", newer.path, "--state", state, *(f"--address={one}" for one in addresses)
        )
        with subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            try:
                assert process.stderr
                said = process.stderr.readline()
                assert "has proved" in said
                (other,) = [device for device in made.devices if not said.startswith(device.name)]
                with frozen(other):
                    while "waiting: 1 of 2 devices cannot be reached" not in said:
                        said = process.stderr.readline()
                        assert "has proved" in said or "waiting" in said, said
                    time.sleep(3)
                    assert process.poll() is None
                    assert load(state)[0].manifest.version == bundle.manifest.version
                assert process.wait(60) == 0
            finally:
                process.kill()
        kept, deployment = load(state)
        assert kept.manifest.version == newer.manifest.version
        with sync.Aggregator(kept, deployment, connect=made.connect) as fleet:
            assert fleet.complete(10.0)
            assert fleet.classify(picture(bundle)).complete
