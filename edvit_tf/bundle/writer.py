"""Write a bundle: whole or not at all.

`with new_bundle(out) as folder:` gives a folder to fill; `write_manifest(folder, Manifest(...))` hashes what
lies in it and ends the work.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from edvit_tf.bundle.checks import RESERVED
from edvit_tf.bundle.codec import parse, serialise
from edvit_tf.bundle.files import MANIFEST, names_in, plain_file, size_and_hash
from edvit_tf.bundle.manifest import FileEntry, Fusion, Manifest, Variant
from edvit_tf.bundle.reader import check_files, open_bundle
from edvit_tf.bundle.refusal import quote, refused
from edvit_tf.errors import UsageError

Part = TypeVar("Part", Variant, Fusion)


@contextmanager
def new_bundle(out: str | Path) -> Iterator[Path]:
    """A temporary folder beside `out` that becomes `out` when the block ends, and vanishes when it fails.

    Whatever leaves the block early, Ctrl-C included, removes the folder. At the end the bundle is opened as
    any reader would open it, so that nothing invalid ever stands at `out`.

    Raises:
        UsageError: something is at `out` already, or nothing can be written there.
        BundleError: what the block wrote is no valid bundle.
    """
    target = Path(out).absolute()
    if os.path.lexists(target):
        raise _exists(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent))
    except OSError as error:
        raise UsageError(
            f"Nothing can be written to {target.parent} ({error.strerror}): choose another folder."
        ) from None
    try:
        folder.chmod(0o755)  # mkdtemp lets nobody else read it
        yield folder
        open_bundle(folder)
        for name in names_in(folder):
            _sync(folder / name)
        _rename(folder, target)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def write_manifest(folder: Path, manifest: Manifest) -> Manifest:
    """Hash every file in `folder` into the manifest, and write it there as the last file.

    Sizes and hashes in `manifest` are not looked at; `files` is made anew from what lies in the folder.

    Returns:
        The manifest as it was written.

    Raises:
        BundleError: the folder and the manifest do not make a valid bundle.
    """
    measured = {name: measure(folder, name) for name in sorted(names_in(folder))}

    def hashed(part: Part) -> Part:
        if part.file not in measured:
            raise refused("missing_file", f"The bundle {folder} has no file {quote(part.file)}")
        return replace(part, bytes=measured[part.file].bytes, sha256=measured[part.file].sha256)

    submodels = tuple(replace(s, variants=tuple(map(hashed, s.variants))) for s in manifest.submodels)
    flatbuffers = {part.file for submodel in submodels for part in submodel.variants} | {manifest.fusion.file}
    others = [name for name in measured if name not in flatbuffers and not name.startswith(RESERVED)]
    complete = replace(
        manifest,
        submodels=submodels,
        fusion=hashed(manifest.fusion),
        files=tuple(measured[name] for name in others),
    )
    data = serialise(complete)
    check_files(folder, parse(data))
    with (folder / MANIFEST).open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return complete


def measure(folder: Path, name: str) -> FileEntry:
    """The entry of a file as it lies in the folder now."""
    size, digest = size_and_hash(plain_file(folder, name))
    return FileEntry(file=name, bytes=size, sha256=digest)


def _rename(folder: Path, target: Path) -> None:
    if os.path.lexists(target):  # rename would replace an empty folder
        raise _exists(target)
    try:
        folder.rename(target)
    except OSError:  # something came to stand there between the two lines
        raise _exists(target) from None
    _sync(target.parent)


def _exists(target: Path) -> UsageError:
    return UsageError(f"{target} exists already: choose another --out, or move it away.")


def _sync(path: Path) -> None:
    """Have the disk keep what was written: a renamed file whose bytes never arrived is worse than none."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
