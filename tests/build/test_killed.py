"""`kill -9` at several moments of an export, and the same command again: the same bundle, byte for byte."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edvit_tf.vit.checkpoint import Checkpoint, save

OPTIONS = ["--devices", "2", "--share", "0.9", "--seed", "7", "--batch", "32", "--sparsity", "0.25"]
OPTIONS += ["--common-epochs", "2", "--epochs", "2", "--sparsity-epochs", "2", "--fusion-epochs", "2"]
OPTIONS += ["--format", "f32,int8", "--widths", "uniform"]


def start(model: Path, data: Path, out: Path, *more: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "edvit_tf.cli.main", "export", *OPTIONS]
    command += ["--model", str(model), "--data", str(data), "--out", str(out), *more]
    return subprocess.Popen(
        command,
        env={**os.environ, "TMPDIR": str(model.parent)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def content(bundle: Path) -> dict[str, bytes]:
    """Every file but the reports, which hold seconds."""
    return {
        str(path.relative_to(bundle)): path.read_bytes()
        for path in bundle.rglob("*")
        if path.is_file() and path.stem != "report"
    }


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_killed_export_goes_on_and_ends_with_the_same_bundle(
    teacher: Checkpoint, data_folder: Path, tmp_path: Path
) -> None:
    model = tmp_path / "toy.safetensors"
    save(model, teacher)
    whole = start(model, data_folder, tmp_path / "whole" / "bundle")
    _, said = whole.communicate()
    assert whole.returncode == 0, said.decode()
    out = tmp_path / "killed" / "bundle"
    cache = out.parent / "edvit-cache"
    for stage in ("answers", "retrain", "convert", "fusion"):
        process = start(model, data_folder, out)
        while process.poll() is None and not list(cache.glob(f"{stage}-*")):
            time.sleep(0.02)
        assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not out.exists()
    last = start(model, data_folder, out)
    _, said = last.communicate()
    assert last.returncode == 0, said.decode()
    assert content(out) == content(tmp_path / "whole" / "bundle")
    assert list(out.parent.rglob("*.part")) == []
