"""Write a bundle: whole or not at all.

`with new_bundle(out) as folder:` gives a folder to fill; `write_manifest(folder, Manifest(...))` hashes what
lies in it and ends the work.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from edvit_tf.bundle.checks import RESERVED
from edvit_tf.bundle.codec import parse, serialise
from edvit_tf.bundle.draft import draft
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
    try:
        with draft(target) as folder:
            yield folder
            open_bundle(folder)
    except FileExistsError:
        raise _exists(target) from None


def check_free(out: str | Path) -> None:
    """Refuse a place for a bundle where something stands already, before hours of work go into one.

    Raises:
        UsageError: something does.
    """
    if os.path.lexists(out):
        raise _exists(Path(out).absolute())


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


def _exists(target: Path) -> UsageError:
    return UsageError(f"{target} exists already: choose another --out, or move it away.")
