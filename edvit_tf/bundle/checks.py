"""What a schema cannot say of a manifest: that its parts agree with each other."""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime

from edvit_tf.bundle.manifest import Manifest, Submodel, TensorSpec, Variant
from edvit_tf.bundle.refusal import quote, refused

RESERVED = ("manifest.", "report.")
LONGEST_SECONDS = 300  # of sound in one picture


def check(manifest: Manifest) -> None:
    """Hold the parts of a manifest against each other.

    Raises:
        BundleError: `bundle.expires`, `bundle.duplicate` (an id or a file named twice), `bundle.path` (a
            reserved name), `bundle.unlisted` (a file that is referred to and not listed), `bundle.classes`,
            `bundle.sound`, `bundle.tensors`, `bundle.order` or `bundle.calibration`.
    """
    _check_expiry(manifest)
    _check_names(manifest)
    _check_listed(manifest)
    _check_classes(manifest)
    _check_sound(manifest)
    for submodel in manifest.submodels:
        _check_tensors(manifest, submodel)
    _check_fusion(manifest)


def _check_expiry(manifest: Manifest) -> None:
    if manifest.expires is None:
        return
    try:
        datetime.fromisoformat(manifest.expires)
    except ValueError:
        raise refused("expires", f"The manifest expires on {manifest.expires}, which is no date") from None


def _check_names(manifest: Manifest) -> None:
    _unique("sub-model", (submodel.id for submodel in manifest.submodels))
    for submodel in manifest.submodels:
        _unique(f"variant of {submodel.id}", (f"{v.format} for {v.target}" for v in submodel.variants))
    names = [entry.file for entry in manifest.every_file()]
    # Names that differ by case alone are one file on Windows, on macOS and on some memory cards.
    _unique("file", (name.lower() for name in names))
    for name in names:
        if name.lower().startswith(RESERVED):
            raise refused(
                "path",
                f"The manifest lists {quote(name)}, a name that is kept for the manifest and the report",
            )


def _unique(kind: str, names: Iterable[str]) -> None:
    for name, count in Counter(names).items():
        if count > 1:
            raise refused("duplicate", f"The manifest names the {kind} {quote(name)} twice")


def _check_listed(manifest: Manifest) -> None:
    listed = {entry.file for entry in manifest.files}
    wanted = {variant.test_vector for submodel in manifest.submodels for variant in submodel.variants}
    wanted.add(manifest.teacher.file)
    if manifest.single is not None:
        wanted.add(manifest.single.file)
    for name in sorted(wanted - listed):
        raise refused(
            "unlisted", f"The manifest refers to {quote(name)} and gives no hash for it under files"
        )


def _check_classes(manifest: Manifest) -> None:
    known = set(manifest.classes)
    covered: set[str] = set()
    for submodel in manifest.submodels:
        for label in submodel.classes:
            if label not in known:
                raise refused(
                    "classes",
                    f"{submodel.id} answers for {quote(label)}, which is none of the bundle's classes",
                )
        covered.update(submodel.classes)
    for label in manifest.classes:
        if label not in covered:
            raise refused("classes", f"No sub-model answers for the class {quote(label)}")


def _check_sound(manifest: Manifest) -> None:
    sound = manifest.input.sound
    if sound is None:
        return
    if sound.window > sound.fft:
        raise refused("sound", f"A frame of {sound.window} samples does not fit into an fft of {sound.fft}")
    if not sound.low_hz < sound.high_hz <= sound.sample_rate / 2:
        raise refused(
            "sound",
            f"The sound's bands reach from {sound.low_hz:g} to {sound.high_hz:g} Hz, and must rise to at "
            f"most half the sample rate of {sound.sample_rate} Hz",
        )
    if not sound.low_db < sound.high_db:
        raise refused("sound", f"The sound's black ({sound.low_db:g} dB) is not below its white")
    if manifest.input.width * sound.hop > LONGEST_SECONDS * sound.sample_rate:
        raise refused("sound", f"The sound is longer than the {LONGEST_SECONDS} seconds that are allowed")


def _check_tensors(manifest: Manifest, submodel: Submodel) -> None:
    image = (1, manifest.input.height, manifest.input.width, manifest.input.channels)
    for variant in submodel.variants:
        (taken,) = variant.inputs
        _check_tensor(variant, taken, "image", "uint8", image)
        for given, name in zip(sorted(variant.outputs, key=_name), ("feature", "logits"), strict=True):
            _check_tensor(variant, given, name, "float32", (1, given.shape[-1]))
        labels = len(submodel.classes)
        if variant.logits_size not in (labels, labels + 1):
            raise refused(
                "tensors",
                f"{variant.file} gives {variant.logits_size} logits for {labels} classes, "
                "where it takes as many or one more",
            )
        if variant.feature_size != submodel.feature_size:
            raise refused(
                "tensors",
                f"The variants of {submodel.id} give features of different lengths, so no fusion fits both",
            )


def _name(tensor: TensorSpec) -> str:
    return tensor.name


def _check_tensor(
    variant: Variant, tensor: TensorSpec, name: str, dtype: str, shape: tuple[int, ...]
) -> None:
    if (tensor.name, tensor.dtype, tensor.shape) != (name, dtype, shape):
        raise refused(
            "tensors",
            f"{variant.file} has a tensor {quote(tensor.name)} of {tensor.dtype} {list(tensor.shape)} where "
            f"{name} of {dtype} {list(shape)} belongs",
        )


def _check_fusion(manifest: Manifest) -> None:
    ids = [submodel.id for submodel in manifest.submodels]
    if sorted(manifest.fusion.order) != sorted(ids):
        raise refused(
            "order",
            f"The fusion takes {', '.join(manifest.fusion.order)[:200]} "
            f"and the bundle has {', '.join(ids)[:200]}, which must be the same sub-models",
        )
    numbers = sorted(entry.missing for entry in manifest.fusion.calibration)
    if numbers != list(range(len(ids))):
        raise refused(
            "calibration",
            f"The fusion's calibration covers {numbers[:20]} missing sub-models, and each number from 0 to "
            f"{len(ids) - 1} belongs there once",
        )
