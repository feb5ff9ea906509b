"""Pictures over one slow link: what a codec brings there, with four devices and a model of the same size."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.net import require_privilege

ROOT = Path(__file__).parents[2]


@pytest.mark.netns
@pytest.mark.fleet
@pytest.mark.long
@pytest.mark.timeout(900)
def test_over_a_slow_link_auto_takes_a_third_of_raw(tmp_path: Path) -> None:
    require_privilege()
    run = [sys.executable, "-m"]
    bundle = [*run, "benchmarks.random_bundle", str(tmp_path / "bundle"), "--devices", "4"]
    subprocess.run(bundle, cwd=ROOT, check=True, capture_output=True)
    options = ["--bundle", str(tmp_path / "bundle"), "--mbit", "8", "--rounds", "1"]
    done = subprocess.run(
        [*run, "benchmarks.wire", *options], cwd=ROOT, check=True, capture_output=True, text=True
    )
    said = json.loads(done.stdout)
    ways = said["ways"]
    assert set(ways["auto"]["codecs"]) == {"jpeg"}, ways
    assert ways["auto"]["sent_bytes"] < ways["raw"]["sent_bytes"] / 4
    assert said["of_raw"]["auto"] <= 1 / 3, said
    assert said["of_raw"]["webp, nothing lost"] <= 0.75, said
    # 600 kB over 8 Mbit/s: the link is as slow as it says.
    assert ways["raw"]["p50"] >= 500, said
