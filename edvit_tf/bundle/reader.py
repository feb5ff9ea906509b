"""Open a bundle: everything is validated before anything is used."""

from dataclasses import dataclass
from pathlib import Path

from edvit_tf.bundle.checks import RESERVED
from edvit_tf.bundle.codec import parse
from edvit_tf.bundle.files import (
    MANIFEST,
    ROLLBACK,
    SIGNATURE,
    names_in,
    plain_file,
    size_and_hash,
    unreadable,
)
from edvit_tf.bundle.manifest import FileEntry, InputSpec, Manifest, Variant
from edvit_tf.bundle.refusal import REPAIR, quote, refused
from edvit_tf.bundle.signature import LARGEST_DECISION_BYTES, SIGNATURE_BYTES
from edvit_tf.bundle.strict_json import LARGEST_BYTES
from edvit_tf.bundle.vector import Vector, load_vector


@dataclass(frozen=True, slots=True)
class Bundle:
    """A folder that held what its manifest says when it was opened.

    `manifest_bytes` are the exact bytes of `manifest.json`: what a signature is over, and what is sent on.
    """

    path: Path
    manifest: Manifest
    manifest_bytes: bytes

    def file(self, name: str) -> Path:
        """Where a file that the manifest names is.

        Raises:
            BundleError: the manifest names no such file (`bundle.unlisted`).
        """
        if all(entry.file != name for entry in self.manifest.every_file()):
            raise refused(
                "unlisted",
                f"The bundle {self.path} lists no file {quote(name)}",
                "edvit-tf inspect shows what it holds",
            )
        return self.path / name

    def vector(self, variant: Variant) -> Vector:
        """The test vector of a variant."""
        return load_vector(self.file(variant.test_vector))

    @property
    def signature(self) -> bytes:
        """What `manifest.sig` holds (64 bytes when it is whole), empty when there is none."""
        return self._beside(SIGNATURE, SIGNATURE_BYTES)

    @property
    def rollback(self) -> bytes:
        """The owner's signed decision to go back to this bundle, empty when there is none."""
        return self._beside(ROLLBACK, LARGEST_DECISION_BYTES)

    def _beside(self, name: str, largest: int) -> bytes:
        path = self.path / name
        if not path.is_file():
            return b""
        with path.open("rb") as file:
            return file.read(largest)

    @property
    def has_signature(self) -> bool:
        """Whether a signature lies beside the manifest; this does not say that it is right."""
        return (self.path / SIGNATURE).is_file()


def open_bundle(path: str | Path) -> Bundle:
    """Read a bundle and hold every file of it against the manifest.

    Raises:
        BundleError: with the code of the cause: `bundle.missing` (no folder), those of `manifest.parse`,
            `bundle.missing_file`, `bundle.path` (a symbolic link or something else that is no file),
            `bundle.size`, `bundle.hash`, `bundle.extra_file`, `bundle.vector`, `bundle.limit` or
            `bundle.unreadable`.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise refused(
            "missing", f"There is no bundle at {folder}", "give the folder that edvit-tf export wrote"
        )
    data = read_manifest(folder)
    manifest = parse(data)
    check_files(folder, manifest)
    return Bundle(path=folder, manifest=manifest, manifest_bytes=data)


def read_manifest(folder: Path) -> bytes:
    """The exact bytes of `manifest.json`, and never more than a manifest may have."""
    path = plain_file(folder, MANIFEST)
    try:
        with path.open("rb") as file:
            return file.read(LARGEST_BYTES + 1)
    except OSError as error:
        raise unreadable(path, error) from None


def check_files(folder: Path, manifest: Manifest) -> None:
    """Hold the folder against its manifest: names first, then sizes, hashes and the test vectors."""
    entries = manifest.every_file()
    _check_nothing_else(folder, {entry.file for entry in entries})
    sizes = [(entry, plain_file(folder, entry.file).stat().st_size) for entry in entries]
    for entry, size in sizes:
        if size != entry.bytes:
            raise refused(
                "size",
                f"{entry.file} in the bundle {folder} has {size} bytes and its manifest says {entry.bytes}",
            )
    for entry in entries:
        _check_hash(folder, entry)
    for submodel in manifest.submodels:
        for variant in submodel.variants:
            _check_vector(folder, manifest.input, variant)


def _check_nothing_else(folder: Path, named: set[str]) -> None:
    for name in sorted(names_in(folder)):
        if name in named:
            continue
        if not name.startswith(RESERVED) or "/" in name:
            raise refused(
                "extra_file",
                f"The bundle {folder} holds {quote(name)}, which its manifest does not name",
                f"remove it, or {REPAIR}",
            )
        plain_file(folder, name)


def _check_hash(folder: Path, entry: FileEntry) -> None:
    _, digest = size_and_hash(folder / entry.file)
    if digest != entry.sha256:
        raise refused(
            "hash", f"{entry.file} in the bundle {folder} is not the file its manifest was written for"
        )


def _check_vector(folder: Path, spec: InputSpec, variant: Variant) -> None:
    vector = load_vector(folder / variant.test_vector)
    expected = ((spec.height, spec.width, spec.channels), (variant.feature_size,), (variant.logits_size,))
    if (vector.image.shape, vector.feature.shape, vector.logits.shape) != expected:
        raise refused(
            "vector",
            f"The test vector {variant.test_vector} has other shapes than {variant.file} takes and gives",
        )
