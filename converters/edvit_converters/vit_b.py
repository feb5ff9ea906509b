"""The paper's example as a benchmark: a whole ViT-B against two sub-models of it, with random weights.

One has all twelve blocks, narrowed alike, as in the paper. The other takes no more bytes and is one of the
shapes that `edvit-tf export --widths tried` tries: half the blocks, half as wide a stream again. Sizes and
times do not depend on the weights. Every figure is the minimum over interleaved rounds of one run.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from edvit_converters.tflite import convert_all
from edvit_tf.errors import MissingPackage
from edvit_tf.runtime.interpreter import Flatbuffer
from edvit_tf.runtime.measure import Clock, measure_interleaved
from edvit_tf.vit.checkpoint import Checkpoint
from edvit_tf.vit.config import PRESETS, BlockConfig, ViTConfig, weight_shapes

Images = NDArray[np.uint8]
Number = TypeVar("Number", int, float)

WHOLE = PRESETS["vit-b16"]
# Two of twelve heads, and of channels and MLP units the same share; three logits: two classes and "other".
SUBMODEL = replace(WHOLE, width=128, blocks=(BlockConfig(2, 512),) * 12, classes=3)
SHAPED = replace(WHOLE, width=192, blocks=(BlockConfig(2, 736),) * 6, classes=3)
SUBMODELS = {"submodel": SUBMODEL, "shaped": SHAPED}

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
    say("Converting a ViT-B and two sub-models with 2 of 12 heads; random weights. Some minutes.")
    images = _images(WHOLE)
    made = {"whole": convert_all(random_model(WHOLE), _WHOLE_FORMATS)}
    for part, config in SUBMODELS.items():
        made[part] = convert_all(random_model(config), _SUBMODEL_FORMATS, images)
    with tempfile.TemporaryDirectory(prefix="edvit-tf-") as folder:
        tasks = _onnx_tasks(random_model(WHOLE), Path(folder), threads)
    for part, flatbuffers in made.items():
        tasks |= {f"{part} {name}": _task(model, images[0], threads) for name, model in flatbuffers.items()}
    say(f"Measuring {len(tasks)} models in {rounds} interleaved rounds, {threads} thread(s).")
    measured = measure_interleaved(tasks, rounds=rounds, clock=clock)
    fastest = {name: latency.min_ms for name, latency in measured.items()}
    medians = {name: latency.p50_ms for name, latency in measured.items()}
    sizes = {f"{part} {name}": len(model) for part, models in made.items() for name, model in models.items()}
    return figures(fastest, sizes) | {
        "bytes": sizes,
        "threads": threads,
        "rounds": rounds,
        "min_ms": fastest,
        "p50_ms": medians,
    }


def figures(fastest: dict[str, float], sizes: dict[str, int]) -> dict[str, object]:
    """Return what the documents quote, from milliseconds and bytes by "whole|submodel|shaped|… FORMAT"."""
    return {
        "original_f32_ms": fastest["whole f32"],
        "original_best_ms": min(_of("whole", fastest).values()),
        "original_bytes": sizes["whole f32"],
        "onnxruntime_f32_ms": fastest["onnxruntime f32"],
        "onnxruntime_int8_ms": fastest["onnxruntime int8"],
        **_figures_of("submodel", "", fastest, sizes),
        **_figures_of("shaped", "shaped_", fastest, sizes),
    }


def _figures_of(
    part: str, prefix: str, fastest: dict[str, float], sizes: dict[str, int]
) -> dict[str, object]:
    """Of one sub-model; its ratios are called `prefix` and what they are of."""
    times, bytes_of = _of(part, fastest), _of(part, sizes)
    limit = _SAME_TIME * min(times.values())
    best_format = min((name for name, time in times.items() if time <= limit), key=bytes_of.__getitem__)
    best, whole = times[best_format], _of("whole", fastest)
    return {
        f"{part}_best_ms": best,
        f"{part}_best_format": best_format,
        f"{part}_int8_full_ms": times["int8-full"],
        f"{part}_f32_ms": times["f32"],
        f"{part}_bytes": bytes_of[best_format],
        f"{prefix}latency_ratio": whole["f32"] / best,
        f"{prefix}latency_ratio_best": min(whole.values()) / best,
        f"{prefix}latency_ratio_any": min(*whole.values(), *_of("onnxruntime", fastest).values()) / best,
        f"{prefix}size_ratio": sizes["whole f32"] / bytes_of[best_format],
    }


def _of(part: str, numbers: dict[str, Number]) -> dict[str, Number]:
    """By format alone."""
    return {name.partition(" ")[2]: n for name, n in numbers.items() if name.partition(" ")[0] == part}


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
