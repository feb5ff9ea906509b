"""The aggregator is killed in the middle of a deploy: the old version answers, and the command goes on."""

import asyncio
import subprocess
from pathlib import Path

import pytest

from edvit_tf.bundle.reader import Bundle
from edvit_tf.fleet import at_address, deploy, survey, sync
from edvit_tf.fleet.state import load, save
from tests.fleet.fakes import picture
from tests.fleet.processes import command, device_processes

pytestmark = [pytest.mark.fleet, pytest.mark.fault]


def test_a_killed_deploy_changes_nothing_and_goes_on(bundle: Bundle, newer: Bundle, tmp_path: Path) -> None:
    with device_processes(["ash", "beech"], tmp_path / "devices") as devices:
        addresses = [device.address for device in devices]
        found = [at_address(address) for address in addresses]
        state = tmp_path / "state"
        save(state, bundle, asyncio.run(deploy(bundle, found)))
        options = [f"--address={address}" for address in addresses]
        run = command("fleet", "deploy", newer.path, "--state", state, *options)
        with subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr
            assert "has proved" in process.stderr.readline()
            process.kill()
        kept, deployment = load(state)
        assert kept.manifest.version == bundle.manifest.version
        with sync.Aggregator(kept, deployment) as fleet:
            assert fleet.complete(10.0)
            assert fleet.classify(picture(bundle)).complete
        subprocess.run(run, check=True, capture_output=True, timeout=60)
        kept, deployment = load(state)
        assert kept.manifest.version == newer.manifest.version
        rows = asyncio.run(survey([at_address(address) for address in addresses]))
        assert {row.bundle_version for row in rows} == {newer.manifest.version}
        with sync.Aggregator(kept, deployment) as fleet:
            assert fleet.complete(10.0)
            assert fleet.classify(picture(bundle)).complete
