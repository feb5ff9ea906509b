"""The formats a sub-model comes in: a closed table, with who answers rightly in each and how closely.

Which interpreter answers rightly in which format was measured: `tflite-runtime` 2.14, the last one there is
for 32-bit Arm, refuses some of today's flatbuffers and silently answers garbage on others.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from edvit_tf.errors import UsageError

Maker = Literal["converter", "quantizer"]

_LITERT = {"ai-edge-litert": "2.3.0"}
_BOTH = {"ai-edge-litert": "2.3.0", "tflite-runtime": "2.14.0"}


@dataclass(frozen=True, slots=True)
class Format:
    """One way to store a sub-model.

    Attributes:
        name: as it stands in file names and in the manifest.
        maker: the TFLite converter alone, or `ai-edge-quantizer` working on the f32 flatbuffer.
        runtimes: interpreters that answer rightly, each with the oldest version that was tried.
        least_cosine: between its outputs and Keras's, for the feature and for the logits of each picture.
        largest_difference: between its outputs and Keras's, as a fraction of the largest output of the
            picture.
        calibrated: whether it is made with pictures, which fix the scales of activations.
    """

    name: str
    maker: Maker
    runtimes: Mapping[str, str]
    least_cosine: float
    largest_difference: float
    calibrated: bool = False


FORMATS: Mapping[str, Format] = {
    entry.name: entry
    for entry in (
        Format("f32", "converter", _BOTH, least_cosine=0.999999, largest_difference=1e-4),
        Format("f16", "converter", _BOTH, least_cosine=0.9999, largest_difference=0.01),
        Format("int8", "converter", _BOTH, least_cosine=0.99, largest_difference=0.15),
        Format("int8-dynamic", "quantizer", _LITERT, least_cosine=0.99, largest_difference=0.15),
        Format("int4-dynamic", "quantizer", _LITERT, least_cosine=0.7, largest_difference=1.0),
        Format("int8-full", "quantizer", _BOTH, least_cosine=0.98, largest_difference=0.5, calibrated=True),
    )
}

_NOT_MADE = ("edgetpu",)


def find(name: str) -> Format:
    """Look a format up by name.

    Raises:
        UsageError: there is no such format, or it cannot be made yet.
    """
    known = ", ".join(FORMATS)
    if name in _NOT_MADE:
        raise UsageError(f"The format {name} cannot be made yet: choose one of {known}.", code="usage.format")
    if name not in FORMATS:
        raise UsageError(f"There is no format {name!r}: choose one of {known}.", code="usage.format")
    return FORMATS[name]
