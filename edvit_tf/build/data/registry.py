"""What a source's name stands for: a data set of the registry, or a folder; and what may be asked of it.

fashion_mnist               a name of the registry
pictures                    a folder of class folders
cifar10?long-tail=50        either, with its training and validation parts thinned out to a long tail
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from edvit_tf.build.data import caltech256, cifar10, fashion_mnist, gtzan, mnist, speech_commands
from edvit_tf.build.data.folders import folder_source
from edvit_tf.build.data.source import Source
from edvit_tf.errors import DataError, UsageError


@dataclass(frozen=True, slots=True)
class Registered:
    """How a data set of the registry is found; `classes` where they are known without any file."""

    open: Callable[[], Source]
    classes: tuple[str, ...] | None = None


REGISTRY: Mapping[str, Registered] = {
    "fashion_mnist": Registered(fashion_mnist.open_source, fashion_mnist.CLASSES),
    "mnist": Registered(mnist.open_source, mnist.CLASSES),
    "cifar10": Registered(cifar10.open_source, cifar10.CLASSES),
    "caltech256": Registered(caltech256.open_source),
    "speech_commands": Registered(speech_commands.open_source),
    "gtzan": Registered(gtzan.open_source, gtzan.CLASSES),
}


@dataclass(frozen=True, slots=True)
class Request:
    """A source as it was asked for: where it is, and how long a tail it shall have."""

    place: str
    long_tail: float | None = None


def parse(source: str | Path) -> Request:
    """Take `NAME?long-tail=RATIO` apart.

    Raises:
        UsageError: another option, or a ratio that is no number.
    """
    place, mark, option = str(source).partition("?")
    if not mark:
        return Request(place)
    name, _, value = option.partition("=")
    try:
        if name == "long-tail":
            return Request(place, float(value))
    except ValueError:
        pass
    raise UsageError(f"'?{option}' is no option of a data set: '?long-tail=50' is one")


def find(place: str) -> Source:
    """The data set of that name, or in that folder.

    Raises:
        DataError: there is none.
    """
    if place in REGISTRY:
        return REGISTRY[place].open()
    folder = Path(place).expanduser()
    if not folder.is_dir():
        raise DataError(
            f"{place} is neither a folder of class folders nor a known data set ({', '.join(REGISTRY)})",
            code="data.missing",
        )
    folder = folder.resolve()
    return folder_source(folder, folder.name, f"folder ({folder})", mirrored=False)
