"""Several event loops one after the other, as a program without asyncio has them: none complains."""

import subprocess
import sys
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parents[1] / "vectors" / "bundle"

PROGRAM = """
import sys
from pathlib import Path

import numpy as np

from edvit_tf.bundle.reader import open_bundle
from edvit_tf.cli.demo_devices import device_fleet
from edvit_tf.fleet import at_address, load_keys, signed, sync, with_keys

bundle_folder, folder = map(Path, sys.argv[1:])
with device_fleet(["ash", "elm"], folder) as fleet:
    keys = load_keys(fleet.folder)
    connect = with_keys(keys)
    bundle = signed(open_bundle(bundle_folder), keys, fleet.folder)
    deployment = sync.deploy(bundle, [at_address(d.address) for d in fleet.devices], connect=connect)
    for _ in range(2):
        with sync.Aggregator(bundle, deployment, connect=connect) as aggregator:
            answers = [aggregator.classify(np.zeros((8, 8, 1), np.uint8)) for _ in range(5)]
    print(sum(answer.complete for answer in answers))
"""


@pytest.mark.fleet
def test_a_loop_that_ends_leaves_nothing_to_the_next(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(GOLDEN), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "5"
    for complaint in ("Event loop is closed", "was destroyed", "Traceback"):
        assert complaint not in done.stderr, done.stderr
