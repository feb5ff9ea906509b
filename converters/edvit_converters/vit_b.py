"""The paper's example as a benchmark: a whole ViT-B against a sub-model of it, with random weights.

Sizes and times do not depend on the weights. Every figure is the minimum over interleaved rounds of one run.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edvit_converters.tflite import convert_all
from edvit_tf.errors import MissingPackage
from edvit_tf.runtime.interpreter import Flatbuffer
from edvit_tf.runtime.measure import Clock, measure_interleaved
from edvit_tf.vit.checkpoint import Checkpoint
from edvit_tf.vit.config import PRESETS, BlockConfig, ViTConfig, weight_shapes

Images = NDArray[np.uint8]

WHOLE = PRESETS["vit-b16"]
# Two of twelve heads, and of channels and MLP units the same share; three logits: two classes and "other".
SUBMODEL = replace(WHOLE, width=128, blocks=(BlockConfig(2, 512),) * 12, classes=3)

_WHOLE_FORMATS = ("f32", "int8-dynamic", "int4-dynamic")
_SUBMODEL_FORMATS = ("f32", "int8-dynamic", "int4-dynamic", "int8-full")
_CALIBRATION_IMAGES = 4
_SAME_TIME = 1.03  # times that differ by less are equal here, and the smaller file wins


def compare(
    *, threads: int, rounds: int, say: Callable[[str], None], clock: Clock = time.perf_counter_ns
) -> dict[str, object]:
    """Make all models, measure them together, and return the figures by name: milliseconds, bytes, ratios.

    `clock` tells the time in nanoseconds.

    Raises:
        MissingPackage: ONNX Runtime is not installed.
    """
    say("Converting a ViT-B and a sub-model with 2 of 12 heads; random weights. Some minutes.")
    images = _images(WHOLE)
    whole = convert_all(random_model(WHOLE), _WHOLE_FORMATS)
    submodel = convert_all(random_model(SUBMODEL), _SUBMODEL_FORMATS, images)
    with tempfile.TemporaryDirectory(prefix="edvit-tf-") as folder:
        tasks = _onnx_tasks(random_model(WHOLE), Path(folder), threads)
    tasks |= {f"whole {name}": _task(model, images[0], threads) for name, model in whole.items()}
    tasks |= {f"submodel {name}": _task(model, images[0], threads) for name, model in submodel.items()}
    say(f"Measuring {len(tasks)} models in {rounds} interleaved rounds, {threads} thread(s).")
    measured = measure_interleaved(tasks, rounds=rounds, clock=clock)
    fastest = {name: latency.min_ms for name, latency in measured.items()}
    medians = {name: latency.p50_ms for name, latency in measured.items()}
    return figures(fastest, {name: len(model) for name, model in whole.items()}, submodel) | {
        "bytes": {f"whole {name}": len(model) for name, model in whole.items()}
        | {f"submodel {name}": len(model) for name, model in submodel.items()},
        "threads": threads,
        "rounds": rounds,
        "min_ms": fastest,
        "p50_ms": medians,
    }


def figures(
    fastest: dict[str, float], whole_bytes: dict[str, int], submodel: dict[str, bytes]
) -> dict[str, object]:
    """Return what the documents quote, from milliseconds by "whole|submodel|onnxruntime FORMAT"."""
    original_best = min(time for name, time in fastest.items() if name.startswith("whole"))
    limit = _SAME_TIME * min(fastest[f"submodel {name}"] for name in submodel)
    best_format = min(
        (name for name in submodel if fastest[f"submodel {name}"] <= limit),
        key=lambda name: len(submodel[name]),
    )
    best = fastest[f"submodel {best_format}"]
    any_best = min(time for name, time in fastest.items() if not name.startswith("submodel"))
    size = len(submodel[best_format])
    return {
        "original_f32_ms": fastest["whole f32"],
        "original_best_ms": original_best,
        "submodel_best_ms": best,
        "submodel_best_format": best_format,
        "submodel_int8_full_ms": fastest["submodel int8-full"],
        "submodel_f32_ms": fastest["submodel f32"],
        "original_bytes": whole_bytes["f32"],
        "submodel_bytes": size,
        "latency_ratio": fastest["whole f32"] / best,
        "latency_ratio_best": original_best / best,
        "onnxruntime_f32_ms": fastest["onnxruntime f32"],
        "onnxruntime_int8_ms": fastest["onnxruntime int8"],
        "latency_ratio_any": any_best / best,
        "size_ratio": whole_bytes["f32"] / size,
    }


def random_model(config: ViTConfig) -> Checkpoint:
    """A model whose sums keep their scale from layer to layer, as training leaves them."""
    generator = np.random.default_rng(0)
    weights = {}
    for name, shape in weight_shapes(config).items():
        inputs = int(np.prod(shape[:-1])) if name.endswith("/kernel") else 100
        weights[name] = generator.standard_normal(shape, np.float32) / np.float32(inputs**0.5)
        weights[name] += np.float32(name.endswith("/gamma"))
    return Checkpoint(config, weights, tuple(str(index) for index in range(config.classes)))


def _images(config: ViTConfig) -> Images:
    image = config.image
    shape = (_CALIBRATION_IMAGES, image.height, image.width, image.channels)
    return np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)


def _task(flatbuffer: bytes, image: Images, threads: int) -> Callable[[], object]:
    loaded = Flatbuffer(flatbuffer, threads=threads)
    return lambda: loaded.run(image)


def _onnx_tasks(model: Checkpoint, folder: Path, threads: int) -> dict[str, Callable[[], object]]:
    """The whole model in ONNX Runtime: f32, and int8 as its own dynamic quantiser makes it."""
    try:
        from edvit_converters.onnx import sessions
    except ModuleNotFoundError as missing:
        raise MissingPackage(f"--vit-b needs {missing.name}: pip install 'edvit-tf[dev]'") from missing
    image = model.config.image
    shape = (1, image.channels, image.height, image.width)
    picture = np.random.default_rng(1).standard_normal(shape, np.float32)

    def task(session: Any) -> Callable[[], object]:
        return lambda: session.run(None, {"image": picture})

    made = sessions(model, folder, threads)
    return {f"onnxruntime {name}": task(session) for name, (session, _) in made.items()}
