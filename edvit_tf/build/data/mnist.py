"""MNIST: handwritten digits in four IDX files (LeCun et al. 1998)."""

from edvit_tf.build.data.archives import Archive, fetch
from edvit_tf.build.data.idx import holds_all, read
from edvit_tf.build.data.places import cache_folder, folder_beside, given_folder, put
from edvit_tf.build.data.source import Source

CLASSES = tuple("0123456789")

# As TensorFlow Datasets publishes them.
_MIRROR = "https://storage.googleapis.com/cvdf-datasets/mnist/"
FILES = (
    Archive(
        f"{_MIRROR}train-images-idx3-ubyte.gz",
        "sha256",
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    ),
    Archive(
        f"{_MIRROR}train-labels-idx1-ubyte.gz",
        "sha256",
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    ),
    Archive(
        f"{_MIRROR}t10k-images-idx3-ubyte.gz",
        "sha256",
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    ),
    Archive(
        f"{_MIRROR}t10k-labels-idx1-ubyte.gz",
        "sha256",
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    ),
)


def open_source() -> Source:
    """Find MNIST: in the folder `mnist` of `EDVIT_DATA`, or by download.

    Not in `EDVIT_DATA` itself: Fashion-MNIST's files have the same names.

    Raises:
        DataError: it is not here and cannot be downloaded.
    """
    given = given_folder()
    folder, origin = cache_folder("mnist"), "downloaded"
    if given is not None and holds_all(given / "mnist"):
        folder, origin = given / "mnist", "EDVIT_DATA"
    elif not folder.is_dir():
        with folder_beside(folder) as fresh:
            for file in FILES:
                fetch(file, fresh)
            put(fresh, folder)
    return Source(
        "mnist",
        f"{origin} ({folder})",
        mirrored=False,
        train=lambda: read(folder, "train", CLASSES),
        test=lambda: read(folder, "t10k", CLASSES),
    )
