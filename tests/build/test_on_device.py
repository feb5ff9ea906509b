"""`edvit-tf export --format auto --on-device`: the devices of a fleet say which format is for them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from edvit_tf.bundle.reader import open_bundle
from edvit_tf.cli.demo_devices import Program
from edvit_tf.cli.main import main
from edvit_tf.fleet import Announced
from edvit_tf.fleet.keys import make_keys
from edvit_tf.fleet.state import FleetState
from edvit_tf.vit.checkpoint import Checkpoint, save
from tests.fleet.processes import command, device_fleet

OLD = Program((sys.executable, "-m", "tests.fleet.old_device"))
ASKED = ("export", "--model", "m", "--data", "d", "--devices", "2", "--out", "o", "--json")


def test_without_a_fleet_or_a_device_it_stops_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [*ASKED, "--format", "auto", "--on-device", "--state", str(tmp_path)]
    assert main(asked) == 1
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "trust.missing"
    make_keys(tmp_path)
    assert main(asked) == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "link.no_device"
    assert error["message"].endswith("adopt it, or leave --on-device out to measure here")


@pytest.mark.slow
@pytest.mark.fleet
@pytest.mark.timeout(900)
def test_the_bundle_says_what_each_device_measured(
    teacher: Checkpoint, data_folder: Path, tmp_path: Path
) -> None:
    model, out = tmp_path / "toy-vit.safetensors", tmp_path / "bundle"
    save(model, teacher)
    asked: list[str | Path] = [
        "export",
        "--model",
        model,
        "--data",
        data_folder,
        "--devices",
        "2",
        "--out",
        out,
    ]
    asked += ["--format", "auto", "--on-device", "--floor", "0.2", "--share", "0.9", "--epochs", "4"]
    asked += ["--widths", "uniform"]
    asked += ["--common-epochs", "0", "--fusion-epochs", "4", "--batch", "32", "--rate", "5e-3", "--json"]
    with device_fleet(["ash", "beech", "old"], tmp_path / "devices", programs={"old": OLD}) as fleet:
        with FleetState(fleet.folder) as state:
            for device in fleet.devices:
                state.enrol(Announced(device.address, device.id, device.name))
        run = command(*asked, "--state", fleet.folder)
        done = subprocess.run(run, capture_output=True, text=True, check=False, timeout=800)
        assert done.returncode == 0, done.stdout
        logs = [device.log() for device in fleet.devices]
        serving = command("fleet", "status", "--state", fleet.folder, "--json")
        rows = json.loads(subprocess.run(serving, capture_output=True, check=True, timeout=60).stdout)
    assert "old does not measure: it runs edvit-tf" in done.stderr
    assert [log.count("µs") > 0 for log in logs] == [True, True, False]
    assert {tuple(row["submodels"]) for row in rows} == {()}, "nothing is installed"

    manifest = open_bundle(out).manifest
    tried = json.loads(done.stdout.splitlines()[-1])["tried"]
    assert tried == manifest.extra["tried"]
    measured = [row for row in tried if "devices" in row]
    for row in measured:
        assert {one["name"] for one in row["devices"]} == {"ash", "beech"}
        assert all(one["ms"] > 0 and one["runtime"].startswith("ai-edge-litert/") for one in row["devices"])
        assert row["ms"] == max(one["ms"] for one in row["devices"])
    kept = tuple(row["format"] for row in tried if not row["reason"])
    for name in ("ash", "beech"):
        good = {
            row["format"]: one["ms"]
            for row in measured
            for one in row["devices"]
            if one["name"] == name and not row["reason"].startswith("accuracy")
        }
        assert min(ms for key, ms in good.items() if key in kept) <= 1.03 * min(good.values())
    for submodel in manifest.submodels:
        assert submodel.formats == kept
        assert any("tflite-runtime" in variant.runtimes for variant in submodel.variants)
