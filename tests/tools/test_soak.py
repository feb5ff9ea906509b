"""Two minutes of the soak; half an hour of it is slow."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from edvit_tf.bundle.reader import Bundle

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.fleet, pytest.mark.fault, pytest.mark.soak]


@pytest.mark.parametrize(
    ("minutes", "seed"),
    [
        pytest.param(2, 1, marks=[pytest.mark.long, pytest.mark.timeout(400)]),
        pytest.param(30, 2, marks=[pytest.mark.slow, pytest.mark.timeout(2400)]),
    ],
)
def test_nothing_goes_wrong(bundle: Bundle, tmp_path: Path, minutes: int, seed: int) -> None:
    script = [sys.executable, str(ROOT / "tools" / "soak.py"), "--bundle", str(bundle.path)]
    options = ["--minutes", str(minutes), "--seed", str(seed), "--folder", str(tmp_path)]
    done = subprocess.run([*script, *options], stdout=subprocess.PIPE, text=True, check=False)
    said = json.loads(done.stdout)
    assert said["wrong"] == "", said
    assert done.returncode == 0
    assert said["outcomes"]["complete"] > 50 * minutes
    assert sum(said["faults"].values()) >= 5 * minutes
