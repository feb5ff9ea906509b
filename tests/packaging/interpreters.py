"""Flatbuffers in another interpreter than this one's: what it says, held against ai-edge-litert here."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edvit_tf.runtime.check import cosine
from edvit_tf.runtime.ensemble import run_many

RIGHT = 0.997  # right interpreters reach it, wrong ones 0.27 and less

_SCRIPT = """
import json, sys
import numpy as np
try:
    from tflite_runtime.interpreter import Interpreter
except ImportError:
    from ai_edge_litert.interpreter import Interpreter
images, found = np.load(sys.argv[1]), {}
for file in sys.argv[2:]:
    interpreter = Interpreter(file)
    interpreter.allocate_tensors()
    run = interpreter.get_signature_runner("serving_default")
    found[file] = [run(image=image[None])["feature"][0].tolist() for image in images]
print(json.dumps(found))
"""


def agreement(
    python: Sequence[str | Path], folder: Path, made: Mapping[str, bytes], images: NDArray[np.uint8]
) -> dict[str, float]:
    """The cosine between the features there and here, by format.

    Args:
        python: the command of a Python that has `tflite_runtime` or `ai_edge_litert`.
        folder: for files.
        made: flatbuffers by format.
        images: pictures uint8 [n, h, w, c].
    """
    np.save(folder / "images.npy", images)
    files = {name: folder / f"{name}.tflite" for name in made}
    for name, content in made.items():
        files[name].write_bytes(content)
    command = [*map(str, python), "-c", _SCRIPT, str(folder / "images.npy"), *map(str, files.values())]
    said = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return {
        name: cosine(np.asarray(said[str(file)], np.float32), run_many(made[name], images).features)
        for name, file in files.items()
    }
