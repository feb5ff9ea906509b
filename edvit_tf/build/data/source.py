"""A data set that was found: where, and how each of its parts is come by. Nothing of it has been read yet."""

from collections.abc import Callable
from dataclasses import dataclass

from edvit_tf.build.data.items import Items


@dataclass(frozen=True, slots=True)
class Source:
    """What a name or a folder stands for.

    Attributes:
        name: of the data set.
        origin: in words, where it was found.
        mirrored: whether a picture flipped left to right keeps its label.
        train: gives what may be trained on.
        validation: gives the validation part; None when it has to be held out.
        test: gives the test part, and is called for an evaluation alone; None when it has to be held out.
        draw: added to the seed that holds out the validation part.
    """

    name: str
    origin: str
    mirrored: bool
    train: Callable[[], Items]
    validation: Callable[[], Items] | None = None
    test: Callable[[], Items] | None = None
    draw: int = 1
