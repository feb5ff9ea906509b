"""What each flatbuffer of a bundle costs here: bytes, and milliseconds a picture on one and two threads.

    python benchmarks/flatbuffers.py BUNDLE [--runs N]

Prints one JSON object a line, the teacher first. The picture is the first sub-model's test vector.
"""

import argparse
import json
from pathlib import Path

from edvit_tf.bundle.reader import open_bundle
from edvit_tf.runtime.interpreter import Flatbuffer, runtime_name
from edvit_tf.runtime.measure import measure

THREADS = (1, 2)


def main() -> None:
    """Measure, one flatbuffer after the other, with nothing else of ours running."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--runs", type=int, default=200)
    arguments = parser.parse_args()

    bundle = open_bundle(arguments.bundle)
    manifest = bundle.manifest
    variants = [variant for submodel in manifest.submodels for variant in submodel.variants]
    image = bundle.vector(variants[0]).image
    singles = [manifest.single.file] if manifest.single else []
    for name in [manifest.teacher.file, *singles, *(variant.file for variant in variants)]:
        file = bundle.file(name)
        times = {n: measure(Flatbuffer(file, threads=n), image, runs=arguments.runs) for n in THREADS}
        row = {"file": name, "bytes": file.stat().st_size, "runtime": runtime_name()}
        for threads, latency in times.items():
            row |= {f"p50_ms_{threads}": latency.p50_ms, f"p95_ms_{threads}": latency.p95_ms}
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
