"""GTZAN: a thousand tracks of thirty seconds in ten genres of music (Tzanetakis and Cook 2002).

It has to be put there by hand: where it was first published it is no longer.
"""

from edvit_tf.build.data.folders import list_files
from edvit_tf.build.data.places import given_folder
from edvit_tf.build.data.source import Source
from edvit_tf.errors import DataError

CLASSES = (
    "blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock",
)  # fmt: skip
LENGTH, PIECES = (22_050, 3.0), 10
_FOLDERS = ("genres", "genres_original", "gtzan/genres", "gtzan/genres_original", "gtzan")


def open_source() -> Source:
    """Find GTZAN in `EDVIT_DATA`. A track gives ten pictures of three seconds, all in one part.

    Raises:
        DataError: it is not there.
    """
    given = given_folder()
    places = [] if given is None else [given / name for name in _FOLDERS]
    folder = next((place for place in places if all((place / label).is_dir() for label in CLASSES)), None)
    if folder is None:
        raise DataError(
            "GTZAN cannot be downloaded: put its folder genres, with a folder of tracks for each genre, in a "
            "folder and set EDVIT_DATA to that",
            code="data.missing",
        )
    folders = [folder / label for label in CLASSES]
    return Source(
        "gtzan",
        f"EDVIT_DATA ({folder})",
        mirrored=False,
        train=lambda: list_files(folders, CLASSES, LENGTH, PIECES),
    )
