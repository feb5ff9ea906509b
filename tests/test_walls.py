"""The walls between the rooms hold, and the linter that says so sees a breach."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def lint_imports(folder: Path) -> tuple[int, str]:
    """Exit status and report of import-linter over the two packages that stand in `folder`."""
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{folder / 'converters'}", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Both packages and the contracts in a folder where they may be broken."""
    leave = shutil.ignore_patterns("__pycache__", "*.safetensors")
    for package in ("edvit_tf", "converters/edvit_converters"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=leave)
    shutil.copy(ROOT / "setup.cfg", tmp_path)
    return tmp_path


def test_the_walls_hold() -> None:
    status, report = lint_imports(ROOT)
    assert status == 0, report
    assert "0 broken" in report


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("edvit_tf/fleet/planted.py", "import tensorflow", "No TensorFlow on the network side"),
        (
            "edvit_tf/runtime/planted.py",
            "from edvit_tf.vit.keras import tf",
            "No TensorFlow on the network side",
        ),
        ("edvit_tf/device/planted.py", "import edvit_tf.fleet", "Every arrow runs down"),
        ("edvit_tf/bundle/planted.py", "import edvit_tf.rpc", "Every arrow runs down"),
        ("converters/edvit_converters/planted.py", "import edvit_tf.build", "Every arrow runs down"),
    ],
)
def test_a_planted_breach_is_seen(copy: Path, file: str, line: str, contract: str) -> None:
    (copy / file).write_text(f'"""Planted."""\n\n{line}\n')
    status, report = lint_imports(copy)
    assert status == 1, report
    assert f"{contract} BROKEN" in report
    assert "planted" in report
