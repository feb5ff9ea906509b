"""Test vectors: a picture and what one variant answered to it where the bundle was made.

A device proves itself on this before it serves, because loading a flatbuffer is no proof: some interpreters
load a format and silently answer garbage.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors import numpy as safetensors

from edvit_tf.bundle.refusal import refused
from edvit_tf.errors import BundleError

LARGEST_BYTES = 64 * 1024 * 1024

_KINDS = {"image": (np.uint8, 3), "feature": (np.float32, 1), "logits": (np.float32, 1)}


@dataclass(frozen=True, slots=True, eq=False)
class Vector:
    """`image` uint8 [height, width, channels]; `feature` float32 [width]; `logits` float32 [classes]."""

    image: np.ndarray
    feature: np.ndarray
    logits: np.ndarray


def save_vector(path: Path, vector: Vector) -> None:
    """Write a test vector as safetensors: the same bytes for the same arrays.

    Raises:
        BundleError: `bundle.vector`: other arrays than `Vector` says, or a number that is not finite.
    """
    tensors = {name: np.ascontiguousarray(getattr(vector, name)) for name in _KINDS}
    _check(str(path), tensors)
    path.write_bytes(safetensors.save(tensors))


def load_vector(path: Path) -> Vector:
    """Read a test vector.

    Raises:
        BundleError: `bundle.vector`: no such file, too large, no safetensors, or as in `save_vector`.
    """
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise _refused(str(path), f"has more than {LARGEST_BYTES} bytes")
        tensors = safetensors.load(path.read_bytes())
    # KeyError: a kind of number that numpy does not know.
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise _refused(str(path), f"cannot be read ({error})") from None
    _check(str(path), tensors)
    return Vector(**tensors)


def _check(name: str, tensors: dict[str, np.ndarray]) -> None:
    if tensors.keys() != _KINDS.keys():
        raise _refused(name, f"holds {', '.join(sorted(tensors))[:200]} and not {', '.join(_KINDS)}")
    for key, (kind, rank) in _KINDS.items():
        tensor = tensors[key]
        if tensor.dtype != kind or tensor.ndim != rank or tensor.size == 0:
            raise _refused(name, f"holds {key} as {tensor.dtype} {list(tensor.shape)}")
        if not np.isfinite(tensor).all():
            raise _refused(name, f"holds numbers in {key} that are not finite")


def _refused(name: str, problem: str) -> BundleError:
    return refused(
        "vector", f"The test vector {name} {problem}", "make the bundle again with edvit-tf export"
    )
