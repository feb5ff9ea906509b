"""What `manifest.json` says, as frozen dataclasses whose field names are the JSON keys.

`manifest.schema.json` gives every key with its meaning and its bounds; `checks.py` holds what a schema cannot
say. Keys that this version does not know are kept in `extra` and written again, so that an older tool can
pass a newer bundle on. `codec.py` turns bytes into these and back.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from edvit_tf.bundle.refusal import refused

SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """One input or output of a flatbuffer; `scale` and `zero_point` are None where it is not quantised."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float | None = None
    zero_point: int | None = None
    extra: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A sub-model in one format. `write_manifest` fills in `sha256` and `bytes`."""

    file: str
    format: str
    target: str
    runtimes: Mapping[str, str]
    arena_bytes: int
    partitions: int
    operators: tuple[str, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    test_vector: str
    sha256: str = ""
    bytes: int = 0
    extra: Mapping[str, object] = field(default_factory=dict)

    @property
    def feature_size(self) -> int:
        """Numbers in the class-token feature."""
        return self._width("feature")

    @property
    def logits_size(self) -> int:
        """Number of logits: the group's classes and, as a rule, one for all others."""
        return self._width("logits")

    @property
    def memory_bytes(self) -> int:
        """What a device needs to serve it: the flatbuffer, the delegate's packed copy of it, the arena."""
        return 2 * self.bytes + self.arena_bytes

    def _width(self, name: str) -> int:
        [tensor] = [tensor for tensor in self.outputs if tensor.name == name]
        return tensor.shape[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Submodel:
    """One part of the split teacher; `classes` in the order of its logits; a last logit more is "other"."""

    id: str
    classes: tuple[str, ...]
    parameters: int
    macs: int
    energy_weight: float
    variants: tuple[Variant, ...]
    extra: Mapping[str, object] = field(default_factory=dict)

    @property
    def feature_size(self) -> int:
        """Numbers in the class-token feature, the same in every variant."""
        return self.variants[0].feature_size

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats it comes in."""
        return tuple(variant.format for variant in self.variants)

    def variant(self, wanted: str | None = None) -> Variant:
        """The variant in the format `wanted`, or the first one.

        Raises:
            BundleError: there is none (`bundle.format`).
        """
        if wanted is None:
            return self.variants[0]
        for variant in self.variants:
            if variant.format == wanted:
                return variant
        raise refused(
            "format",
            f"{self.id} has no variant in format {wanted}",
            f"choose one of {', '.join(self.formats)}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """The temperature that divides the fusion's logits when so many sub-models are missing."""

    missing: int
    temperature: float
    extra: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fusion:
    """What the aggregator runs over the features. `write_manifest` fills in `sha256` and `bytes`."""

    file: str
    order: tuple[str, ...]
    calibration: tuple[Calibration, ...]
    missing: str = "zeros-and-present"
    sha256: str = ""
    bytes: int = 0
    extra: Mapping[str, object] = field(default_factory=dict)

    def temperature(self, missing: int) -> float:
        """The temperature for `missing` absent sub-models."""
        return next(entry.temperature for entry in self.calibration if entry.missing == missing)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """A file of the bundle, with what it must hash to."""

    file: str
    sha256: str
    bytes: int
    extra: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SoundSpec:
    """How sound becomes a log-mel picture, as many bands high and as many frames wide as the input says.

    `sample_rate` and the edges `low_hz` and `high_hz` are in Hz, `window`, `hop` and `fft` in samples; black
    is `low_db` and white `high_db`, where 0 dB is a sine of full scale. `sound.py` has the formula.
    """

    sample_rate: int
    window: int
    hop: int
    fft: int
    low_hz: float
    high_hz: float
    low_db: float
    high_db: float
    extra: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSpec:
    """The picture that every sub-model takes: uint8 [height, width, channels]."""

    height: int
    width: int
    channels: int
    codecs: tuple[str, ...] = ("raw",)
    sound: SoundSpec | None = None
    extra: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Teacher:
    """The model that was split; `file` is its f32 flatbuffer."""

    name: str
    parameters: int
    macs: int
    file: str
    extra: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Single:
    """The baseline: one student of all classes, as large as one sub-model."""

    parameters: int
    macs: int
    file: str
    extra: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracies:
    """Fractions of the validation split: `variants` by file, `missing` by the id of the absent sub-model.

    `fused` and `missing` are of each sub-model's first variant. Newer bundles have in `extra`, as `formats`,
    the fused accuracy with every sub-model in that format, by format.
    """

    teacher: float
    fused: float
    variants: Mapping[str, float]
    missing: Mapping[str, float]
    single: float | None = None
    split: str = "validation"
    extra: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Everything that the network side needs to know of a bundle. `write_manifest` completes `files`."""

    name: str
    version: int
    classes: tuple[str, ...]
    input: InputSpec
    submodels: tuple[Submodel, ...]
    fusion: Fusion
    teacher: Teacher
    accuracies: Accuracies
    config: Mapping[str, object]
    seed: int
    made_with: Mapping[str, str]
    files: tuple[FileEntry, ...] = ()
    single: Single | None = None
    expires: str | None = None
    key_id: str | None = None
    schema: int = SCHEMA
    extra: Mapping[str, object] = field(default_factory=dict)

    def submodel(self, submodel_id: str) -> Submodel:
        """The sub-model of that id.

        Raises:
            BundleError: there is none (`bundle.submodel`).
        """
        for submodel in self.submodels:
            if submodel.id == submodel_id:
                return submodel
        known = ", ".join(submodel.id for submodel in self.submodels)
        raise refused(
            "submodel", f"Bundle {self.name} has no sub-model {submodel_id}", f"choose one of {known}"
        )

    def every_file(self) -> tuple[FileEntry, ...]:
        """Every file that the manifest answers for: flatbuffers, the fusion, and the rest."""
        named: list[Variant | Fusion] = [v for submodel in self.submodels for v in submodel.variants]
        named.append(self.fusion)
        entries = (FileEntry(file=part.file, sha256=part.sha256, bytes=part.bytes) for part in named)
        return (*entries, *self.files)
