"""What `manifest.json` says, as frozen dataclasses whose field names are the JSON keys.

`manifest.schema.json` gives every key with its meaning and its bounds; `checks.py` holds what a schema cannot
say. Keys that this version does not know are kept in `extra` and written again, so that an older tool can
pass a newer bundle on. A key's value is checked once, in `parse`; nothing else in the project reads the JSON.
"""

import json
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from importlib import resources
from typing import Any, NoReturn

import fastjsonschema

from edvit_tf.bundle.checks import check
from edvit_tf.bundle.refusal import quote, refused
from edvit_tf.bundle.strict_json import load

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
        return next(tensor.shape[-1] for tensor in self.outputs if tensor.name == name)


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
class InputSpec:
    """The picture that every sub-model takes: uint8 [height, width, channels]."""

    height: int
    width: int
    channels: int
    codecs: tuple[str, ...] = ("raw",)
    sound: Mapping[str, object] | None = None
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
    """Fractions of the validation split: `variants` by file, `missing` by the id of the absent sub-model."""

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


def parse(data: bytes) -> Manifest:
    """The manifest that `data`, the exact bytes of a `manifest.json`, holds.

    Raises:
        BundleError: with the code of the cause: those of `strict_json.load`, `bundle.version` (a schema this
            version does not know), `bundle.path`, `bundle.schema`, or those of `checks.check`.
    """
    document = load(data)
    _check_version(document)
    try:
        _validator()(document)
    except fastjsonschema.JsonSchemaValueException as error:
        _refuse(error)
    manifest: Manifest = _decode(Manifest, document)
    check(manifest)
    return manifest


def serialise(manifest: Manifest) -> bytes:
    """The bytes of `manifest.json`: the same for equal manifests, unknown fields included."""
    text = json.dumps(to_json(manifest), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return text.encode() + b"\n"


def to_json(part: object) -> Any:
    """A manifest, or a part of one, as what `json` writes."""
    if is_dataclass(part) and not isinstance(part, type):
        known = {f.name: to_json(getattr(part, f.name)) for f in fields(part) if f.name != "extra"}
        return {**to_json(getattr(part, "extra", {})), **known}
    if isinstance(part, Mapping):
        return {key: to_json(value) for key, value in part.items()}
    if isinstance(part, list | tuple):
        return [to_json(value) for value in part]
    return part


def _decode(kind: Any, value: Any) -> Any:
    """`value`, which the schema has passed, as the type `kind` of a field."""
    if hasattr(kind, "__dataclass_fields__"):
        hints = _hints(kind)
        known = {key: _decode(hints[key], item) for key, item in value.items() if key in hints}
        return kind(**known, extra={key: item for key, item in value.items() if key not in hints})
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        return None if value is None else _decode(arguments[0], value)
    if origin is tuple:
        return tuple(_decode(arguments[0], item) for item in value)
    if origin is Mapping:
        return {key: _decode(arguments[1], item) for key, item in value.items()}
    # JSON has one kind of number: 1.0 where an integer belongs is 1, and 1 where a float belongs is 1.0.
    return kind(value) if kind in (int, float) else value


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return {name: hint for name, hint in typing.get_type_hints(kind).items() if name != "extra"}


@cache
def _validator() -> Any:
    text = resources.files("edvit_tf.bundle").joinpath("manifest.schema.json").read_text("utf-8")
    return fastjsonschema.compile(json.loads(text))


def _check_version(document: Any) -> None:
    if not isinstance(document, dict) or "schema" not in document:
        raise refused("schema", "manifest.json is not a bundle's manifest")
    schema = document["schema"]
    if type(schema) is not int or schema != SCHEMA:
        raise refused(
            "version",
            f"The bundle's manifest has schema {quote(schema)} and this version reads schema {SCHEMA}",
            "install a newer edvit-tf, or export the bundle with this one",
        )


_PATH_KEYS = ("file", "test_vector")


def _refuse(error: fastjsonschema.JsonSchemaValueException) -> NoReturn:
    place = ascii(str(error.name).removeprefix("data").removeprefix(".") or "it")[1:-1][:120]
    if error.rule == "pattern" and place.rpartition(".")[2] in _PATH_KEYS:
        raise refused(
            "path",
            f"{place} in the manifest is {quote(error.value)}, which is no safe file name inside a bundle",
        ) from None
    problem = ascii(str(error.message).removeprefix(str(error.name)).strip())[1:-1][:200]
    raise refused("schema", f"The manifest is not valid, {place} {problem}") from None
