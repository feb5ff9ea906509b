"""An export at the paper's sizes, one step of each training: the most memory it can have had, and seconds.

    python -m benchmarks.at_size [--model vit-b16] [--devices 10] [--workers 2]

Weights and pictures are random, so nothing is said of accuracy. Every stage runs: importance, surgery, the
common student, retraining, sparsity, conversion to f32, int8-dynamic and int4-dynamic, fusion. An epoch has
as few pictures as make one step of retraining. Memory is the sum of the peaks of the processes that live,
see `tree_bytes`, of each stage the most. Prints one JSON object.
"""

import argparse
import contextlib
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import IO, cast

import numpy as np
from PIL import Image

from edvit_tf.vit.config import PRESETS

CLASSES = 10
BATCH = 128
OTHERS = 4
VALIDATED = 5
"""Pictures a class for validation: weights of noise only have to be run on some, at two a second."""
_SECONDS_BETWEEN_LOOKS = 0.5
_STAGE = re.compile(r"\d+ %  ([^:]+):")
"""Of a line of progress, as `export` writes it where there is no terminal."""


def make_pictures(folder: Path, size: int, *, each: int, seed: int) -> None:
    """Class folders of noise: `each` pictures a class under train/, `VALIDATED` under val/."""
    generator = np.random.default_rng(seed)
    for part, count in (("train", each), ("val", VALIDATED)):
        for label in range(CLASSES):
            place = folder / part / f"class-{label}"
            place.mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 256, (size, size, 3), np.uint8)
                Image.fromarray(pixels).save(place / f"{number:03}.jpg", quality=90)


def tree_bytes(root: int) -> int:
    """The most that a process and all below it, those that live, have had resident, in bytes.

    Each one's own peak, as if they had met, and shared pages in each: the true peak is no higher. Looking at
    what each shares (smaps_rollup) would take half of a core and slow what is measured.
    """
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit():
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    total, waiting = 0, [root]
    while waiting:
        process = waiting.pop()
        waiting += children.get(process, [])
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{process}/status").read_text().splitlines()
            total += next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)
    return total


class Stages:
    """The stage that an export is in, by its progress, which is passed on; and the most memory of each."""

    def __init__(self, progress: IO[str]) -> None:
        self.peaks: dict[str, int] = {}
        self._stage = "start"
        self._progress = progress
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self._progress:
            sys.stderr.write(line)
            if found := _STAGE.search(line):
                self._stage = found[1]

    def look(self, root: int) -> None:
        """Look at the memory of a process and of all below it."""
        self.peaks[self._stage] = max(self.peaks.get(self._stage, 0), tree_bytes(root))


def main() -> None:
    """Make pictures, run the command line, and watch it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="vit-b16", choices=sorted(PRESETS))
    parser.add_argument("--devices", type=int, default=10)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        each = math.ceil(BATCH / (CLASSES // arguments.devices + OTHERS))
        make_pictures(folder / "pictures", PRESETS[arguments.model].image.height, each=each, seed=1)
        command = [sys.executable, "-m", "edvit_tf.cli.main", "export", "--random-weights", "--json"]
        command += ["--model", arguments.model, "--data", str(folder / "pictures")]
        command += ["--devices", str(arguments.devices), "--workers", str(arguments.workers)]
        command += ["--out", str(folder / "bundle"), "--format", "f32,int8-dynamic,int4-dynamic"]
        command += ["--common-epochs", "1"]
        command += ["--epochs", "1", "--sparsity", "0.5", "--sparsity-epochs", "1", "--fusion-epochs", "1"]
        command += ["--batch", str(BATCH), "--others", str(OTHERS)]
        environment = os.environ | {"XDG_CACHE_HOME": str(folder / "decoded")}
        started = time.monotonic()
        with subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
        ) as process:
            stages = Stages(cast("IO[str]", process.stderr))
            while process.poll() is None:
                stages.look(process.pid)
                time.sleep(_SECONDS_BETWEEN_LOOKS)
        seconds = time.monotonic() - started
        if process.returncode:
            sys.exit(process.returncode)
        report = json.loads((folder / "bundle" / "report.json").read_text())
        row = {
            "model": arguments.model,
            "devices": arguments.devices,
            "workers": arguments.workers,
            "pictures": each * CLASSES,
            "seconds": round(seconds, 1),
            "seconds_of_stages": report["seconds"],
            "at_most_gib": round(max(stages.peaks.values()) / 2**30, 2),
            "at_most_gib_of_stages": {name: round(peak / 2**30, 2) for name, peak in stages.peaks.items()},
        }
        print(json.dumps(row))


if __name__ == "__main__":
    main()
