"""Speech Commands v0.02: 35 words of one second, each said by many people (Warden, arXiv 1804.03209)."""

from edvit_tf.build.data.archives import Archive, unpacked
from edvit_tf.build.data.folders import TESTING_LIST, listed_source
from edvit_tf.build.data.places import given_folder
from edvit_tf.build.data.source import Source

ARCHIVE = Archive(  # as TensorFlow Datasets publishes it
    "http://download.tensorflow.org/data/speech_commands_v0.02.tar.gz",
    "sha256",
    "af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58",
)
LENGTH = (16_000, 1.0)
_FOLDERS = ("speech_commands", "speech_commands_v0.02", ".")


def open_source() -> Source:
    """Find Speech Commands: in `EDVIT_DATA`, unpacked or as an archive, or by download (2.4 GB).

    Its own two lists divide it, so that no speaker is in two parts; background noise is no class.

    Raises:
        DataError: it is not here and cannot be downloaded.
    """
    given = given_folder()
    places = [] if given is None else [given / name for name in _FOLDERS]
    folder = next((place for place in places if (place / TESTING_LIST).is_file()), None)
    origin = "EDVIT_DATA"
    if folder is None:
        folder, origin = unpacked("speech_commands", ARCHIVE), "the original archive"
    return listed_source(folder, "speech_commands", f"{origin} ({folder})", LENGTH)
