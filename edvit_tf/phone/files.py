"""The flatbuffers of a bundle in a folder of the phone, for measuring them there."""

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edvit_tf.bundle.reader import Bundle
from edvit_tf.errors import PhoneError
from edvit_tf.phone.adb import Adb, Phone

FOLDER = "/data/local/tmp/edvit"  # the one place where adb's user may both write and run


@dataclass(frozen=True, slots=True)
class Flatbuffer:
    """A flatbuffer of a bundle: `format` is empty for the whole model, `path` is where it is on the phone."""

    file: str
    format: str
    bytes: int
    path: str


@dataclass(frozen=True, slots=True)
class Pushed:
    """What is on the phone now, and how many bytes of it had to be sent."""

    flatbuffers: tuple[Flatbuffer, ...]
    sent_bytes: int


def push_bundle(adb: Adb, phone: Phone, bundle: Bundle, say: Callable[[str], None]) -> Pushed:
    """Send each sub-model in each format, and the whole model; what is there already stays.

    Raises:
        PhoneError: the phone has no room, or went away.
    """
    hashes = {entry.file: entry.sha256 for entry in bundle.manifest.every_file()}
    sent = 0
    flatbuffers = _flatbuffers(bundle)
    for flatbuffer in flatbuffers:
        if _sha256(adb, phone, flatbuffer.path) == hashes[flatbuffer.file]:
            continue
        say(f"{flatbuffer.file}: {flatbuffer.bytes} bytes")
        adb.push(phone, bundle.file(flatbuffer.file), flatbuffer.path)
        if _sha256(adb, phone, flatbuffer.path) != hashes[flatbuffer.file]:
            raise PhoneError(
                f"{flatbuffer.file} arrived changed: try again, or use another cable.", code="phone.push"
            )
        sent += flatbuffer.bytes
    return Pushed(flatbuffers, sent)


def push_program(adb: Adb, phone: Phone, program: Path) -> str:
    """Send a program, make it executable, and return its path on the phone."""
    path = f"{FOLDER}/{program.name}"
    adb.push(phone, program, path)
    done = adb.shell(phone, f"chmod 755 {shlex.quote(path)}")
    if done.status != 0:
        raise PhoneError(
            f"{program.name} cannot be made executable on the phone: {done.errors.strip()}.",
            code="phone.push",
        )
    return path


def _flatbuffers(bundle: Bundle) -> tuple[Flatbuffer, ...]:
    manifest = bundle.manifest
    folder = f"{FOLDER}/{manifest.name}-{manifest.version}"
    variants = [(variant.file, variant.format) for part in manifest.submodels for variant in part.variants]
    sizes = {entry.file: entry.bytes for entry in manifest.every_file()}
    return tuple(
        Flatbuffer(file, made_in, sizes[file], f"{folder}/{file}")
        for file, made_in in [*variants, (manifest.teacher.file, "")]
    )


def _sha256(adb: Adb, phone: Phone, path: str) -> str:
    done = adb.shell(phone, f"sha256sum {shlex.quote(path)}", seconds=120.0)
    return done.text.split(maxsplit=1)[0] if done.status == 0 and done.text else ""
