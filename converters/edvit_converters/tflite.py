"""Keras → TFLite: one flatbuffer with static shapes and one signature that every language reads."""

from typing import Any

from edvit_converters.formats import find
from edvit_tf.errors import MissingPackage, ModelError
from edvit_tf.vit.checkpoint import Checkpoint
from edvit_tf.vit.keras import tf
from edvit_tf.vit.model import build, fold_normalisation, write_weights

# After the door: TensorFlow must not be imported before it.
from tensorflow.lite.python.convert_phase import ConverterError  # isort: skip


def convert(model: Checkpoint, format_name: str) -> bytes:
    """Make a flatbuffer of a ViT: the same weights give the same bytes.

    Normalisation is folded into the patch embedding. The signature `serving_default` takes `image` uint8 [1,
    h, w, c] and gives `feature` f32 [1, width] and `logits` f32 [1, classes].

    Raises:
        UsageError: there is no such format, or it cannot be made yet.
        ModelError: the converter fails.
    """
    chosen = find(format_name)
    if chosen.maker == "quantizer":
        return _quantize(_convert_vit(model, "f32"), chosen.name)
    return _convert_vit(model, chosen.name)


def convert_all(model: Checkpoint, format_names: tuple[str, ...]) -> dict[str, bytes]:
    """Make several formats of one ViT, and the f32 flatbuffer that the quantiser starts from once."""
    chosen = [find(name) for name in format_names]
    needed = {f.name if f.maker == "converter" else "f32" for f in chosen}
    made = {name: _convert_vit(model, name) for name in sorted(needed)}
    return {
        f.name: made[f.name] if f.maker == "converter" else _quantize(made["f32"], f.name) for f in chosen
    }


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

    return _convert(serve, specs, model, "f32")


def _convert_vit(model: Checkpoint, format_name: str) -> bytes:
    config, weights = fold_normalisation(model.config, model.weights)
    network = build(config, batch_size=1)
    write_weights(network, weights)
    image = config.image
    spec = tf.TensorSpec((1, image.height, image.width, image.channels), tf.uint8, name="image")

    def serve(image: Any) -> Any:
        return network(image, training=False)

    return _convert(serve, [spec], network, format_name)


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


def _quantize(flatbuffer: bytes, format_name: str) -> bytes:
    # Not at the top of the file: the quantiser imports TensorFlow, and `edvit_tf.vit.keras` must do that
    # first.
    try:
        from ai_edge_quantizer import quantizer, recipe
    except ModuleNotFoundError as missing:
        raise MissingPackage(
            f"The format {format_name} needs {missing.name}: pip install 'edvit-tf[export]'"
        ) from missing

    recipes = {"int8-dynamic": recipe.dynamic_wi8_afp32, "int4-dynamic": recipe.dynamic_wi4_afp32}
    work = quantizer.Quantizer(flatbuffer, recipes[format_name]())
    made = work.quantize(enable_progress_bar=False, enable_progress_report=False)
    return bytes(made.quantized_model)
