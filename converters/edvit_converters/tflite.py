"""Keras → TFLite: one flatbuffer with static shapes and one signature that every language reads."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edvit_converters.compact import compact
from edvit_converters.formats import Format, find
from edvit_converters.graph import Serving, is_sparse, rewrite
from edvit_converters.quantizer import quantize
from edvit_tf.errors import ModelError, UsageError
from edvit_tf.vit.checkpoint import Checkpoint
from edvit_tf.vit.config import ImageSize
from edvit_tf.vit.keras import tf

# After the door: TensorFlow must not be imported before it.
from tensorflow.lite.python.convert_phase import ConverterError  # isort: skip


Images = NDArray[np.uint8]


def convert(model: Checkpoint, format_name: str, calibration: Images | None = None) -> bytes:
    """Make a flatbuffer of a ViT: the same weights give the same bytes.

    The signature `serving_default` takes `image` uint8 [1, h, w, c] and gives `feature` f32 [1, width] and
    `logits` f32 [1, classes].

    Args:
        model: the ViT.
        format_name: a name of the table of formats.
        calibration: training pictures uint8 [n, h, w, c], for a format that fixes the scales of activations.

    Raises:
        UsageError: there is no such format, it is not made of a ViT, or it needs pictures to calibrate on.
        ModelError: the converter fails.
    """
    return convert_all(model, (format_name,), calibration)[format_name]


def convert_all(
    model: Checkpoint, format_names: tuple[str, ...], calibration: Images | None = None
) -> dict[str, bytes]:
    """Make several formats of one ViT, and the f32 flatbuffer that the quantiser starts from once."""
    chosen = [find(name) for name in format_names]
    for entry in chosen:
        _check_of_vit(entry)
        _check_calibration(entry, calibration)
    needed = {entry.name if entry.maker == "converter" else "f32" for entry in chosen}
    made = {name: _convert_vit(model, name) for name in sorted(needed)}
    return {
        entry.name: compact(
            made[entry.name] if entry.maker == "converter" else quantize(made["f32"], entry.name, calibration)
        )
        for entry in chosen
    }


def _check_of_vit(chosen: Format) -> None:
    if chosen.maker == "student":
        raise UsageError(
            f"{chosen.name} is made of a student that is no ViT: use edvit-tf export --format {chosen.name}",
            code="usage.format",
        )


def _check_calibration(chosen: Format, calibration: Images | None) -> None:
    if chosen.calibrated and (calibration is None or len(calibration) == 0):
        raise UsageError(
            f"The format {chosen.name} needs pictures to calibrate on: give some training pictures, or "
            "choose int8-dynamic, which needs none.",
            code="usage.calibration",
        )


def convert_serving(serve: Any, image: ImageSize, format_name: str) -> bytes:
    """Make a flatbuffer of any function with a sub-model's signature, as `convert` does of a ViT.

    Args:
        serve: from `image` uint8 [1, h, w, c] to `feature` f32 [1, width] and `logits` f32 [1, classes].
        image: the picture.
        format_name: a format that needs no pictures to calibrate on.

    Raises:
        UsageError: there is no such format, or it needs pictures.
        ModelError: the converter fails.
    """
    chosen = find(format_name)
    _check_of_vit(chosen)
    _check_calibration(chosen, None)
    made = _convert(
        serve, [_picture(image)], tf.Module(), "f32" if chosen.maker == "quantizer" else format_name
    )
    return compact(quantize(made, format_name, None) if chosen.maker == "quantizer" else made)


def convert_student(serve: Any, image: ImageSize, calibration: Images) -> bytes:
    """Make the int8 flatbuffer of a student, uint8 in, every step of it in 8-bit integers.

    Args:
        serve: from `image` f32 [1, h, w, c], 0 to 255, to `feature` f32 [1, width] and `logits` f32
            [1, classes].
        image: the picture.
        calibration: training pictures uint8 [n, h, w, c]; n at least 1.

    Raises:
        ModelError: the converter fails.
    """
    spec = tf.TensorSpec((1, image.height, image.width, image.channels), tf.float32, name="image")
    converter = _converter(serve, [spec], tf.Module())
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([one[np.newaxis].astype(np.float32)] for one in calibration)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.uint8
    return compact(_run(converter, "edgetpu"))


def convert_fusion(model: Any) -> bytes:
    """Make the f32 flatbuffer of a fusion model.

    Args:
        model: a `keras.Model` with inputs named `features` f32 [b, total] and `present` f32 [b, sub-models],
            and output `logits` f32 [b, classes].

    Raises:
        ModelError: the converter fails.
    """
    widths = {tensor.name.partition(":")[0]: int(tensor.shape[-1]) for tensor in model.inputs}
    specs = [tf.TensorSpec((1, widths[name]), tf.float32, name=name) for name in ("features", "present")]

    def serve(features: Any, present: Any) -> Any:
        answer = model({"features": features, "present": present}, training=False)
        return {"logits": answer["logits"] if isinstance(answer, dict) else answer}

    return compact(_convert(serve, specs, model, "f32"))


def _convert_vit(model: Checkpoint, format_name: str) -> bytes:
    config = model.config
    centred = not is_sparse(model.weights)
    weights = rewrite(config, model.weights, centred=centred)
    serving = Serving(config, weights, fuse=format_name != "int8", centred=centred)
    return _convert(serving, [_picture(config.image)], serving, format_name)


def _picture(image: ImageSize) -> Any:
    return tf.TensorSpec((1, image.height, image.width, image.channels), tf.uint8, name="image")


def _converter(serve: Any, specs: list[Any], owner: Any) -> Any:
    function = tf.function(serve, input_signature=specs, autograph=False).get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], owner)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    return converter


def _convert(serve: Any, specs: list[Any], owner: Any, format_name: str) -> bytes:
    converter = _converter(serve, specs, owner)
    if format_name != "f32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if format_name == "f16":
        converter.target_spec.supported_types = [tf.float16]
    if format_name == "int8":
        # One scale a tensor: tflite-runtime 2.14 refuses the FULLY_CONNECTED that takes one a channel.
        converter._experimental_disable_per_channel = True
        converter._experimental_disable_per_channel_quantization_for_dense_layers = True
    return _run(converter, format_name)


def _run(converter: Any, format_name: str) -> bytes:
    try:
        return bytes(converter.convert())
    except (ConverterError, ValueError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ModelError(f"TensorFlow cannot convert the model to {format_name}: {reason}") from error
