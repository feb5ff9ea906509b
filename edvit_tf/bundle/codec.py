"""`manifest.json` as bytes, and the manifest it holds: checked once, here; nothing else reads the JSON."""

import json
import types
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from importlib import resources
from typing import Any, NoReturn

import fastjsonschema

from edvit_tf.bundle.checks import check
from edvit_tf.bundle.manifest import SCHEMA, Manifest
from edvit_tf.bundle.refusal import quote, refused
from edvit_tf.bundle.strict_json import load


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
