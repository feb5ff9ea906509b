"""Keras → TFLite: one flatbuffer with static shapes and one signature that every language reads."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edvit_converters.compact import compact
from edvit_converters.formats import Format, find
from edvit_converters.graph import is_sparse, rewrite, serving
from edvit_tf.errors import MissingPackage, ModelError, UsageError
from edvit_tf.quiet import without_lines
from edvit_tf.runtime.interpreter import DELEGATE_NOTE, SIGNATURE
from edvit_tf.vit.checkpoint import Checkpoint
from edvit_tf.vit.config import ImageSize
from edvit_tf.vit.keras import tf

# After the door: TensorFlow must not be imported before it.
from tensorflow.lite.python.convert_phase import ConverterError  # isort: skip


Images = NDArray[np.uint8]

# What ai-edge-quantizer chooses by: the output of a layer's product bears the layer's name.
_STATIC_LAYERS = ".*(mlp_up|mlp_down|_key_and_).*"


def convert(model: Checkpoint, format_name: str, calibration: Images | None = None) -> bytes:
    """Make a flatbuffer of a ViT: the same weights give the same bytes.

    The signature `serving_default` takes `image` uint8 [1, h, w, c] and gives `feature` f32 [1, width] and
    `logits` f32 [1, classes].

    Args:
        model: the ViT.
        format_name: a name of the table of formats.
        calibration: training pictures uint8 [n, h, w, c], for a format that fixes the scales of activations.

    Raises:
        UsageError: there is no such format, it cannot be made yet, or it needs pictures to calibrate on.
        ModelError: the converter fails.
    """
    return convert_all(model, (format_name,), calibration)[format_name]


def convert_all(
    model: Checkpoint, format_names: tuple[str, ...], calibration: Images | None = None
) -> dict[str, bytes]:
    """Make several formats of one ViT, and the f32 flatbuffer that the quantiser starts from once."""
    chosen = [find(name) for name in format_names]
    for entry in chosen:
        _check_calibration(entry, calibration)
    needed = {entry.name if entry.maker == "converter" else "f32" for entry in chosen}
    made = {name: _convert_vit(model, name) for name in sorted(needed)}
    return {
        entry.name: compact(
            made[entry.name]
            if entry.maker == "converter"
            else _quantize(made["f32"], entry.name, calibration)
        )
        for entry in chosen
    }


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
    _check_calibration(chosen, None)
    made = _convert(
        serve, [_picture(image)], tf.Module(), "f32" if chosen.maker == "quantizer" else format_name
    )
    return compact(_quantize(made, format_name, None) if chosen.maker == "quantizer" else made)


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
    serve = serving(config, weights, fuse=format_name != "int8", centred=centred)
    return _convert(serve, [_picture(config.image)], tf.Module(), format_name)


def _picture(image: ImageSize) -> Any:
    return tf.TensorSpec((1, image.height, image.width, image.channels), tf.uint8, name="image")


def _convert(serve: Any, specs: list[Any], owner: Any, format_name: str) -> bytes:
    function = tf.function(serve, input_signature=specs, autograph=False).get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], owner)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    if format_name != "f32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if format_name == "f16":
        converter.target_spec.supported_types = [tf.float16]
    if format_name == "int8":
        # One scale a tensor: tflite-runtime 2.14 refuses the FULLY_CONNECTED that takes one a channel.
        converter._experimental_disable_per_channel = True
        converter._experimental_disable_per_channel_quantization_for_dense_layers = True
    try:
        return bytes(converter.convert())
    except (ConverterError, ValueError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ModelError(f"TensorFlow cannot convert the model to {format_name}: {reason}") from error


def _quantize(flatbuffer: bytes, format_name: str, calibration: Images | None) -> bytes:
    # Not at the top of the file: the quantiser imports TensorFlow, and `edvit_tf.vit.keras` must do that
    # first.
    try:
        from ai_edge_quantizer import quantizer
    except ModuleNotFoundError as missing:
        raise MissingPackage(
            f"The format {format_name} needs {missing.name}: pip install 'edvit-tf[export]'"
        ) from missing

    with without_lines(DELEGATE_NOTE):
        work = quantizer.Quantizer(flatbuffer, _recipe(format_name))
        scales = None
        if calibration is not None and find(format_name).calibrated:
            scales = work.calibrate({SIGNATURE: [{"image": image[np.newaxis]} for image in calibration]})
        made = work.quantize(scales, enable_progress_bar=False, enable_progress_report=False)
    return bytes(made.quantized_model)


def _recipe(format_name: str) -> Any:
    """What ai-edge-quantizer does to which operator; a later entry wins over an earlier one."""
    from ai_edge_quantizer.algorithm_manager import AlgorithmName
    from ai_edge_quantizer.qtyping import TFLOperationName
    from ai_edge_quantizer.recipe_manager import RecipeManager

    recipe = RecipeManager()
    everything, dense = TFLOperationName.ALL_SUPPORTED, TFLOperationName.FULLY_CONNECTED
    if format_name == "int8-full":
        recipe.add_static_config(
            regex=_STATIC_LAYERS, operation_name=dense, activation_num_bits=8, weight_num_bits=8
        )
        return recipe.get_quantization_recipe()
    recipe.add_dynamic_config(regex=".*", operation_name=everything, num_bits=8)
    if format_name == "int4-dynamic":
        recipe.add_dynamic_config(
            regex=".*", operation_name=dense, num_bits=4, algorithm_key=AlgorithmName.OCTAV
        )
    return recipe.get_quantization_recipe()
