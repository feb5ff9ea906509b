"""The formats a sub-model comes in: a closed table, with who answers rightly in each and how closely.

Which interpreter answers rightly in which format was measured: `tflite-runtime` 2.14, the last one there is
for 32-bit Arm, refuses some of today's flatbuffers and silently answers garbage on others.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from edvit_tf.errors import UsageError

Maker = Literal["converter", "quantizer", "student"]

_LITERT = {"ai-edge-litert": "2.3.0"}
_BOTH = {"ai-edge-litert": "2.3.0", "tflite-runtime": "2.14.0"}


@dataclass(frozen=True, slots=True)
class Format:
    """One way to store a sub-model.

    Attributes:
        name: as it stands in file names and in the manifest.
        maker: the TFLite converter alone, `ai-edge-quantizer` working on the f32 flatbuffer, or the
            converter on the student that stands for a ViT.
        runtimes: interpreters that answer rightly, each with the oldest version that was tried.
        least_cosine: between its outputs and Keras's, for the feature and for the logits.
        largest_difference: between its outputs and Keras's, as a fraction of the largest output.
        least_agreement: share of pictures on which it and Keras have the same first class.
        calibrated: whether it is made with pictures, which fix the scales of activations.
    """

    name: str
    maker: Maker
    runtimes: Mapping[str, str]
    least_cosine: float
    largest_difference: float
    least_agreement: float
    calibrated: bool = False


FORMATS: Mapping[str, Format] = {
    entry.name: entry
    for entry in (
        Format("f32", "converter", _BOTH, 0.999999, 1e-4, 0.98),
        Format("f16", "converter", _BOTH, 0.9999, 0.01, 0.98),
        Format("int8", "converter", _BOTH, 0.99, 0.15, 0.9),
        Format("int8-dynamic", "quantizer", _LITERT, 0.99, 0.15, 0.9),
        Format("int4-dynamic", "quantizer", _LITERT, 0.98, 0.5, 0.8),
        Format("int8-full", "quantizer", _BOTH, 0.98, 0.5, 0.8, calibrated=True),
        # Of a student that is no ViT; without the user's compiler it runs anywhere, and fast nowhere.
        Format("edgetpu", "student", _BOTH, 0.95, 0.5, 0.8, calibrated=True),
    )
}

UNTRAINED_COSINE = 0.7
"""What is asked of random weights in any format but f32 and f16: nothing bounds what they make of rounding.

A wrong flatbuffer stays below 0.3.
"""


def find(name: str) -> Format:
    """Look a format up by name.

    Raises:
        UsageError: there is no such format.
    """
    known = ", ".join(FORMATS)
    if name not in FORMATS:
        raise UsageError(f"There is no format {name!r}: choose one of {known}.", code="usage.format")
    return FORMATS[name]
