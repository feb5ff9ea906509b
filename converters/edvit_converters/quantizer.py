"""What `ai-edge-quantizer` makes of a finished f32 flatbuffer: which numbers are stored in how many bits."""

import re
from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edvit_converters.formats import find
from edvit_converters.int4 import revive_scales, round_products, store_rounded
from edvit_tf.errors import MissingPackage
from edvit_tf.quiet import without_lines
from edvit_tf.runtime.interpreter import DELEGATE_NOTE, SIGNATURE

Images = NDArray[np.uint8]

# What the quantiser chooses by: the output of a layer's product bears the layer's name.
_STATIC_LAYERS = ".*(mlp_up|mlp_down|_key_and_).*"
# A progress bar that the quantiser draws whatever it is told.
_NOTES = re.compile(DELEGATE_NOTE.pattern + rb"|\r?Applying Transformations[^\r\n]*\n?", re.MULTILINE)
_SCALED_IMAGES = 128  # that fix the scales of activations


def quantize(flatbuffer: bytes, format_name: str, calibration: Images | None) -> bytes:
    """Make a format whose maker is the quantiser.

    Args:
        flatbuffer: the f32 one, tensors' names included.
        format_name: of the table of formats.
        calibration: training pictures uint8 [n, h, w, c], or None where the format needs none.

    Raises:
        MissingPackage: the quantiser is not installed.
    """
    if format_name == "int4-dynamic":
        return _int4(flatbuffer, calibration)
    scaled = None
    if calibration is not None and find(format_name).calibrated:
        scaled = calibration[:: -(-len(calibration) // _SCALED_IMAGES)]
    return _apply(flatbuffer, _recipe(format_name), scaled)


def _int4(flatbuffer: bytes, calibration: Images | None) -> bytes:
    """With pictures rounded for them; without, clipped by OCTAV (arXiv 2206.06501), which needs none."""
    if calibration is None or len(calibration) == 0:
        return revive_scales(_apply(flatbuffer, _int4_recipe(None, "OCTAV"), None))
    rounded = round_products(flatbuffer, calibration)
    return store_rounded(_apply(flatbuffer, _int4_recipe(rounded), None), rounded)


def _apply(flatbuffer: bytes, recipe: Any, calibration: Images | None) -> bytes:
    # Not at the top of the file: the quantiser imports TensorFlow, and `edvit_tf.vit.keras` must do that
    # first.
    try:
        from ai_edge_quantizer import quantizer
    except ModuleNotFoundError as missing:
        raise MissingPackage(f"This format needs {missing.name}: pip install 'edvit-tf[export]'") from missing

    with without_lines(_NOTES):
        work = quantizer.Quantizer(flatbuffer, recipe)
        scales = None
        if calibration is not None:
            scales = work.calibrate({SIGNATURE: [{"image": image[np.newaxis]} for image in calibration]})
        made = work.quantize(scales, enable_progress_bar=False, enable_progress_report=False)
    return bytes(made.quantized_model)


def _recipe(format_name: str) -> Any:
    """What ai-edge-quantizer does to which operator; a later entry wins over an earlier one."""
    from ai_edge_quantizer.qtyping import TFLOperationName
    from ai_edge_quantizer.recipe_manager import RecipeManager

    recipe = RecipeManager()
    if format_name == "int8-full":
        recipe.add_static_config(
            regex=_STATIC_LAYERS,
            operation_name=TFLOperationName.FULLY_CONNECTED,
            activation_num_bits=8,
            weight_num_bits=8,
        )
    else:
        recipe.add_dynamic_config(regex=".*", operation_name=TFLOperationName.ALL_SUPPORTED, num_bits=8)
    return recipe.get_quantization_recipe()


def _int4_recipe(names: Collection[str] | None, algorithm: str = "MIN_MAX_UNIFORM_QUANT") -> Any:
    """The products of these names, or all, in int4, and everything else in int8."""
    from ai_edge_quantizer.algorithm_manager import AlgorithmName
    from ai_edge_quantizer.qtyping import TFLOperationName
    from ai_edge_quantizer.recipe_manager import RecipeManager

    recipe = RecipeManager()
    recipe.add_dynamic_config(regex=".*", operation_name=TFLOperationName.ALL_SUPPORTED, num_bits=8)
    for name in [""] if names is None else names:
        recipe.add_dynamic_config(
            regex=f"^{re.escape(name)}",
            operation_name=TFLOperationName.FULLY_CONNECTED,
            num_bits=4,
            algorithm_key=AlgorithmName[algorithm],
        )
    return recipe.get_quantization_recipe()
