"""KerasCV's RandAugment, MixUp and CutMix between the pictures and the training step.

All that is random follows from the generator that is given: TensorFlow's seeds are drawn from it anew for
every batch, so that an interrupted training goes on with the same pictures. Layers that draw run eagerly;
inside a compiled step their draws could not be repeated.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edvit_tf.vit.keras import tf

_PICTURES_OF_A_DRAW = 16
_OPERATIONS, _MAGNITUDE, _MAGNITUDE_DEVIATION = 2, 0.3, 0.15
_MIXUP_ALPHA, _CUTMIX_ALPHA = 0.2, 1.0  # of the papers, arXiv 1710.09412 and 1905.04899

Images = NDArray[np.uint8]
Targets = NDArray[np.float32]
Augment = Callable[[Images, Targets, np.random.Generator], tuple[Images, Targets]]
"""Of pictures uint8 [b, h, w, c], their targets f32 [b, classes] and a generator: others in their place."""


def augmentation(name: str) -> Augment | None:
    """What `--augment` names; None for `none`."""
    if name == "none":
        return None
    from keras_cv import layers

    if name == "mixup":
        return _mixing(layers.MixUp(alpha=_MIXUP_ALPHA))
    if name == "cutmix":
        return _mixing(layers.CutMix(alpha=_CUTMIX_ALPHA))
    policy = layers.RandAugment.get_standard_policy((0, 255), _MAGNITUDE, _MAGNITUDE_DEVIATION)
    return _rand_augment([_compiled(one) if isinstance(one, layers.Equalization) else one for one in policy])


def _mixing(layer: Any) -> Augment:
    """MixUp or CutMix: each picture with another one of the batch, the targets in the same proportion."""

    def mix(images: Images, targets: Targets, generator: np.random.Generator) -> tuple[Images, Targets]:
        _seed(generator)
        mixed = layer({"images": images.astype(np.float32), "labels": targets})
        return _pixels(mixed["images"]), np.asarray(mixed["labels"], np.float32)

    return mix


def _compiled(layer: Any) -> Any:
    """A layer that draws nothing, traced once: eagerly, Equalization is traced anew at every call."""
    colours = tf.TensorSpec((None, None, None, 3), tf.float32)
    return tf.function(lambda images: layer(images), input_signature=[colours])


def _rand_augment(operations: list[Any]) -> Augment:
    """RandAugment (arXiv 1909.13719), drawn once for every sixteen pictures: one by one is slow."""

    def change(images: Images, targets: Targets, generator: np.random.Generator) -> tuple[Images, Targets]:
        _seed(generator)
        changed = []
        for start in range(0, len(images), _PICTURES_OF_A_DRAW):
            part = images[start : start + _PICTURES_OF_A_DRAW].astype(np.float32)
            grey = part.shape[-1] == 1
            part = np.repeat(part, 3, axis=-1) if grey else part  # some operations know only colours
            for index in generator.choice(len(operations), _OPERATIONS, replace=False):
                part = operations[index](part)
            changed.append(_pixels(part)[..., :1] if grey else _pixels(part))
        return np.concatenate(changed), targets

    return change


def _seed(generator: np.random.Generator) -> None:
    seed = int(generator.integers(2**31))
    tf.random.set_seed(seed)
    tf.random.get_global_generator().reset_from_seed(seed)  # the one that KerasCV's layers hold


def _pixels(images: Any) -> Images:
    return np.asarray(np.clip(np.rint(np.asarray(images)), 0, 255), np.uint8)
