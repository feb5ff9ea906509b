"""Pictures leave nothing behind, neither in `edvit-tf serve` nor in a device."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from edvit_tf.bundle.reader import Bundle

ROOT = Path(__file__).parents[2]
# Of memory, until allocators and caches have what they keep; over 100,000 answers it is 80 bytes each.
MOST_GROWTH_BYTES = 8 << 20

pytestmark = pytest.mark.fleet


@pytest.mark.parametrize(
    "answers",
    [
        pytest.param(4_000, marks=[pytest.mark.long, pytest.mark.timeout(600)]),
        pytest.param(100_000, marks=[pytest.mark.slow, pytest.mark.timeout(5400)]),
    ],
)
def test_memory_is_flat(bundle: Bundle, answers: int) -> None:
    command = [sys.executable, "-m", "benchmarks.memory", str(bundle.path), "--answers", str(answers)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    said = json.loads(done.stdout)
    assert said["statuses"] == {"200": said["answers"], "400": answers - said["answers"]}
    assert said["answers"] == 0.99 * answers
    assert len(said["processes"]) == 1 + len(bundle.manifest.submodels)
    for name, process in said["processes"].items():
        assert process["grown_bytes"] < MOST_GROWTH_BYTES, (name, process)
        assert abs(process["end"]["files"] - process["warm"]["files"]) <= 4, (name, process)
        assert process["end"]["threads"] - process["warm"]["threads"] <= 4, (name, process)
