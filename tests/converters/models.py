"""Small Vision Transformers of random weights, for every format to be tried on."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edvit_tf.vit.checkpoint import Checkpoint
from edvit_tf.vit.config import BlockConfig, ImageSize, ViTConfig, weight_shapes

UNIFORM = ViTConfig(
    image=ImageSize(28, 28, 1),
    patch=7,
    width=48,
    head_size=16,
    blocks=(BlockConfig(3, 192),) * 2,
    classes=4,
    mean=(72.9,),
    deviation=(90.0,),
)
# Each block has kept another number of heads and units, and the picture is not square.
PRUNED = ViTConfig(
    image=ImageSize(24, 16, 3),
    patch=8,
    width=40,
    head_size=16,
    blocks=(BlockConfig(4, 72), BlockConfig(1, 200)),
    classes=11,
    mean=(123.7, 116.3, 103.5),
    deviation=(58.4, 57.1, 57.4),
)
STEM = replace(PRUNED, stem=(16, 24))
CONFIGS = {"uniform-grey": UNIFORM, "pruned-colour": PRUNED, "stem": STEM}


def random_vit(config: ViTConfig, seed: int = 0) -> Checkpoint:
    """Weights of the size that training leaves: sums over a layer's inputs keep their scale."""
    generator = np.random.default_rng(seed)
    weights = {}
    for name, shape in weight_shapes(config).items():
        inputs = int(np.prod(shape[:-1])) if name.endswith("/kernel") else 100
        weights[name] = (generator.standard_normal(shape) / inputs**0.5).astype(np.float32)
        weights[name] += np.float32(name.endswith("/gamma"))
    return Checkpoint(config, weights, tuple(f"class {index}" for index in range(config.classes)))


def random_images(config: ViTConfig, count: int = 8) -> NDArray[np.uint8]:
    """Pictures uint8 [count, height, width, channels]."""
    shape = (count, config.image.height, config.image.width, config.image.channels)
    return np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
