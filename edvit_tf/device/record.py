"""The small file that says what a device has installed: which variants of which manifests."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from edvit_tf.device.served import Served, Shelf
from edvit_tf.errors import DeviceError

RECORD_FILE = "installed.json"


@dataclass(frozen=True, slots=True)
class Entry:
    """One bundle: the SHA-256 of its manifest, and the variant (a file name) of each sub-model."""

    manifest: str
    submodels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Record:
    """What was on the shelf; with `resting` the settled bundle made room for the one on trial."""

    settled: Entry | None
    trial: Entry | None
    resting: bool


def to_json(shelf: Shelf) -> bytes:
    """Write down what is on a shelf."""
    resting = shelf.trial.serving and not shelf.settled.serving
    document = {"settled": _entry(shelf.settled), "trial": _entry(shelf.trial), "resting": resting}
    return json.dumps(document, indent=2, sort_keys=True).encode()


def read(record: bytes) -> Record:
    """Read what `to_json` wrote.

    Raises:
        DeviceError: it is something else (`device.record`).
    """
    try:
        document = json.loads(record)
        return Record(_read(document["settled"]), _read(document["trial"]), document["resting"] is True)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DeviceError(f"{RECORD_FILE} in the store is broken", code="device.record") from error


def _entry(served: Served) -> dict[str, object] | None:
    if not served.manifest:
        return None
    return {
        "manifest": served.manifest,
        "submodels": {submodel: held.variant for submodel, held in served.held.items()},
    }


def _read(entry: Mapping[str, Mapping[str, object]] | None) -> Entry | None:
    if entry is None:
        return None
    return Entry(str(entry["manifest"]), {str(key): str(file) for key, file in entry["submodels"].items()})
