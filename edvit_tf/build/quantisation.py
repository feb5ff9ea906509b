"""TF-MOT quantisation-aware training for `int8-full`: the sub-model learns with its numbers already rounded.

What that format computes in integers is rounded here: kernels to 8 bits with a scale for each output, and
inputs and outputs of those layers to 8 bits. The kernels are first folded as the converter will fold them, so
that what is trained is what is stored. Scales of activations in the flatbuffer come from calibration.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from edvit_converters.graph import fold_in_place  # before TF-MOT: through it TensorFlow enters by our door
from edvit_converters.tflite import convert
from numpy.typing import NDArray
from tensorflow_model_optimization.quantization import keras as api

from edvit_tf.build.resume import Best, Snapshots
from edvit_tf.build.retrain import GroupData, train_on_group, with_weights
from edvit_tf.build.training import Schedule
from edvit_tf.runtime.ensemble import run_many
from edvit_tf.vit.checkpoint import Checkpoint, Weights
from edvit_tf.vit.keras import keras
from edvit_tf.vit.layers import LayerNorm
from edvit_tf.vit.model import from_checkpoint, named_variables, read_config, read_weights

_NORMS = ("_attention_norm", "_mlp_norm")
_ATTENTION = ("_attention_norm", "_query", "_key", "_value")
_MLP = ("_mlp_norm", "_mlp_up", "_gelu", "_mlp_down")
"""Layers that are rounded: those with a kernel, and those whose outputs they read."""

_PREFIX = "quant_"  # TF-MOT's, of the layers that it wraps
_TFMOT_VARIABLES = ("/optimizer_step", "_min", "_max")


def train_quantised(
    student: Checkpoint,
    data: GroupData,
    schedule: Schedule,
    images: NDArray[np.uint8],
    *,
    matching: float,
    seed: int,
    report: Callable[[float, str], None],
    snapshots: Snapshots | None = None,
) -> tuple[Checkpoint, float]:
    """Train on with rounded numbers; the epoch that is best on validation, rounded, is kept.

    Args:
        student: a retrained sub-model without zeros from pruning, which this would fill.
        data: of its group.
        schedule: of this stage.
        images: pictures uint8 [n, h, w, c] that say where activations start.
        matching: weight of the class token's loss, as in `retrain`.
        seed: decides the order of pictures and their augmentation.
        report: told the share done and a few words after every epoch.
        snapshots: where an interrupted training is taken up again.

    Returns:
        The model in floats, TF-MOT's wrappers taken off again, and its validation accuracy when rounded.
    """
    keras.utils.set_random_seed(seed)
    student = with_weights(student, fold_in_place(student.config, student.weights))
    plain = from_checkpoint(student)
    model = _rounded(plain, images)

    best = Best(student.weights)
    train_on_group(
        model,
        data,
        schedule,
        best,
        matching=matching,
        seed=seed,
        report=report,
        snapshots=snapshots,
        weights_of=_weights_of,
    )
    return with_weights(student, dict(best.weights)), best.accuracy


def better_in_integers(
    candidates: Sequence[Checkpoint], data: GroupData, images: NDArray[np.uint8]
) -> tuple[Checkpoint, list[float]]:
    """The candidate that is right most often on validation as an `int8-full` flatbuffer; of equals the first.

    Args:
        candidates: models of the same group.
        data: of that group.
        images: training pictures uint8 [n, h, w, c] to calibrate on.

    Returns:
        It, and the accuracy of each.
    """
    reached = [
        data.judge(run_many(convert(one, "int8-full", images), data.images).logits, data.labels)
        for one in candidates
    ]
    return candidates[int(np.argmax(reached))], reached


class Rounding(api.QuantizeConfig):  # type: ignore[misc]
    """Round a layer's output, and its kernel where it has one."""

    def get_weights_and_quantizers(self, layer: Any) -> list[Any]:
        """The kernel: a scale for each output, 0 in the middle."""
        kernel = api.quantizers.LastValueQuantizer(
            num_bits=8, per_axis=True, symmetric=True, narrow_range=True
        )
        return [(layer.kernel, kernel)] if hasattr(layer, "kernel") else []

    def set_quantize_weights(self, layer: Any, weights: list[Any]) -> None:
        """Put the rounded kernel in."""
        if weights:
            (layer.kernel,) = weights

    def get_activations_and_quantizers(self, layer: Any) -> list[Any]:  # noqa: ARG002
        """None: what is rounded is the output."""
        return []

    def set_quantize_activations(self, layer: Any, activations: list[Any]) -> None:
        """There are none."""

    def get_output_quantizers(self, layer: Any) -> list[Any]:  # noqa: ARG002
        """One scale for all."""
        return [
            api.quantizers.MovingAverageQuantizer(
                num_bits=8, per_axis=False, symmetric=False, narrow_range=False
            )
        ]

    def get_config(self) -> dict[str, Any]:
        """Nothing to keep."""
        return {}


class FoldedNorm(LayerNorm):
    """A norm whose scale and shift are folded away: 1 and 0, which are not trained.

    TF-MOT's wrapper trains what was trainable when it was built, whatever is said afterwards.
    """

    def build(self, shape: Any) -> None:
        """The same weights as `LayerNorm`."""
        keywords = {"shape": (shape[-1],), "trainable": False}
        self.gamma = self.add_weight(name="gamma", initializer="ones", **keywords)
        self.beta = self.add_weight(name="beta", initializer="zeros", **keywords)
        keras.layers.Layer.build(self, shape)


def _rounded(plain: Any, images: NDArray[np.uint8]) -> Any:
    """A copy of the model that rounds as it computes."""
    last = f"block_{len(read_config(plain).blocks) - 1}_"  # its class token attends in floats

    def annotate(layer: Any) -> Any:
        folded = layer.name.endswith(_NORMS)
        copy = (FoldedNorm if folded else layer.__class__).from_config(layer.get_config())
        rounded = layer.name.endswith(_MLP if layer.name.startswith(last) else (*_ATTENTION, *_MLP))
        return api.quantize_annotate_layer(copy, Rounding()) if rounded else copy

    with api.quantize_scope({"Rounding": Rounding, "FoldedNorm": FoldedNorm}):
        model = api.quantize_apply(keras.models.clone_model(plain, clone_function=annotate))
    weights = read_weights(plain)
    for name, variable in named_variables(model).items():
        if name.removeprefix(_PREFIX) in weights:
            variable.assign(weights[name.removeprefix(_PREFIX)])
    _set_ranges(plain, model, images)
    return model


def _set_ranges(plain: Any, model: Any, images: NDArray[np.uint8]) -> None:
    """Ranges of activations start as the pictures have them: moving averages are slow to come from ±6."""
    rounded = [layer for layer in model.layers if layer.name.startswith(_PREFIX)]
    taps = [plain.get_layer(layer.name.removeprefix(_PREFIX)).output for layer in rounded]
    outputs = keras.Model(plain.input, taps)(images, training=False)
    variables = named_variables(model)
    for layer, output in zip(rounded, outputs, strict=True):
        variables[f"{layer.name}/output_min"].assign(min(0.0, float(np.min(output))))
        variables[f"{layer.name}/output_max"].assign(max(0.0, float(np.max(output))))


def _weights_of(model: Any) -> Weights:
    """The weights that the plain model has, without TF-MOT's ranges and counters."""
    found = {name.removeprefix(_PREFIX): weight for name, weight in read_weights(model).items()}
    return {name: weight for name, weight in found.items() if not name.endswith(_TFMOT_VARIABLES)}
