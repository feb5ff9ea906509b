"""Real photographs that come with scikit-image: nothing is downloaded."""

from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from edvit_tf.bundle.picture import PictureSize, prepare, read_picture

# In colour, and in the wheel itself: a person, a cat, a cup, a rocket, a workshop, tissue, an eye, the sky.
NAMES = (
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "rocket.jpg",
    "motorcycle_left.png",
    "ihc.png",
    "retina.jpg",
    "hubble_deep_field.jpg",
)


def photographs(size: PictureSize) -> dict[str, NDArray[np.uint8]]:
    """Each as a model takes it, uint8 [height, width, channels], by its file's name."""
    folder = files("skimage.data")
    return {name: prepare(read_picture(folder.joinpath(name).read_bytes()), size) for name in NAMES}
