"""What zeros in the Dense kernels are worth: bytes on the disk, bytes after zstd, and time.

    python benchmarks/sparse.py [--rounds N]

The teacher that ships, its smallest weights set to zero kernel by kernel. Sizes and times do not depend on
training, which `edvit-tf export --sparsity` does; accuracy is not looked at. Needs the program `zstd`. Prints
one JSON object a line.
"""

import argparse
import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
from edvit_converters.tflite import convert_all
from numpy.typing import NDArray

from edvit_tf import zoo
from edvit_tf.build.data import load as load_data
from edvit_tf.runtime.interpreter import Flatbuffer
from edvit_tf.runtime.measure import measure_interleaved
from edvit_tf.vit.checkpoint import Checkpoint, load

FORMATS = ("f32", "int8", "int4-dynamic", "int8-full")
SHARES = ("0", "0.5", "0.75", "2:4")
CALIBRATION_PICTURES = 128


def main() -> None:
    """Prune, convert, compress, measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    if shutil.which("zstd") is None:
        sys.exit("there is no program zstd: install it first")
    model = load(zoo.path("fashion-vit"))
    images = load_data("fashion_mnist", seed=0, image=model.config.image).train.images
    pictures = np.asarray(images[:: len(images) // CALIBRATION_PICTURES][:CALIBRATION_PICTURES])
    made = {
        (share, name): flatbuffer
        for share in SHARES
        for name, flatbuffer in convert_all(with_zeros(model, share), FORMATS, pictures).items()
    }
    loaded = {key: Flatbuffer(flatbuffer) for key, flatbuffer in made.items()}
    tasks = {"/".join(key): (lambda one=one: one.run(pictures[0])) for key, one in loaded.items()}
    times = measure_interleaved(tasks, rounds=arguments.rounds)
    for (share, name), flatbuffer in made.items():
        row = {
            "sparsity": share,
            "format": name,
            "bytes": len(flatbuffer),
            "zstd_bytes": len(compressed(flatbuffer)),
            "min_ms": times[f"{share}/{name}"].min_ms,
        }
        print(json.dumps(row), flush=True)


def with_zeros(model: Checkpoint, share: str) -> Checkpoint:
    """The model with so many zeros in each Dense kernel: a share of all, or two in each four inputs."""

    def pruned(kernel: NDArray[np.float32]) -> NDArray[np.float32]:
        size = np.abs(kernel)
        if share == "2:4":
            fours = size.reshape(-1, 4, size.shape[1])
            keep = fours.argsort(axis=1).argsort(axis=1) >= 2
            return kernel * keep.reshape(kernel.shape)
        return np.where(size < np.quantile(size, float(share)), np.float32(0), kernel)

    weights = {
        name: pruned(weight) if name.endswith("/kernel") and weight.ndim == 2 else weight
        for name, weight in model.weights.items()
    }
    return replace(model, weights=weights)


def compressed(data: bytes) -> bytes:
    """What zstd makes of it at its ordinary best."""
    return subprocess.run(["zstd", "-19", "-c"], input=data, capture_output=True, check=True).stdout


if __name__ == "__main__":
    main()
