"""Make `manifests/` again: `python -m tests.vectors.make_manifests`.

Each file is a `manifest.json` with one fault (or none), and `index.json` says with which code a reader
refuses it. A reader in any language goes through them all. They are small: one sub-model, one variant, and no
files beside them, so that only what a manifest alone can show is tested.
"""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent / "manifests"

VARIANT = {
    "file": "submodels/submodel-0.f32.tflite",
    "sha256": "a" * 64,
    "bytes": 100,
    "format": "f32",
    "target": "any",
    "runtimes": {"ai-edge-litert": "2.3.0"},
    "arena_bytes": 64,
    "partitions": 1,
    "operators": ["GELU"],
    "inputs": [{"name": "image", "shape": [1, 8, 8, 1], "dtype": "uint8", "scale": None, "zero_point": None}],
    "outputs": [
        {"name": "feature", "shape": [1, 16], "dtype": "float32", "scale": None, "zero_point": None},
        {"name": "logits", "shape": [1, 2], "dtype": "float32", "scale": None, "zero_point": None},
    ],
    "test_vector": "vectors/0.safetensors",
}
VALID = {
    "schema": 1,
    "name": "small",
    "version": 1,
    "expires": None,
    "key_id": None,
    "classes": ["circle", "square"],
    "input": {"height": 8, "width": 8, "channels": 1, "codecs": ["raw"], "sound": None},
    "submodels": [
        {
            "id": "submodel-0",
            "classes": ["circle", "square"],
            "parameters": 10,
            "macs": 20,
            "energy_weight": 1.0,
            "variants": [VARIANT],
        }
    ],
    "fusion": {
        "file": "fusion.tflite",
        "sha256": "b" * 64,
        "bytes": 50,
        "order": ["submodel-0"],
        "missing": "zeros-and-present",
        "calibration": [{"missing": 0, "temperature": 1.0}],
    },
    "files": [
        {"file": "baselines/teacher.tflite", "sha256": "c" * 64, "bytes": 200},
        {"file": "vectors/0.safetensors", "sha256": "d" * 64, "bytes": 30},
    ],
    "teacher": {"name": "teacher", "parameters": 100, "macs": 200, "file": "baselines/teacher.tflite"},
    "single": None,
    "accuracies": {
        "split": "validation",
        "teacher": 0.9,
        "fused": 0.8,
        "variants": {},
        "missing": {},
        "single": None,
    },
    "config": {},
    "seed": 0,
    "made_with": {},
}

SOUND = {
    "sample_rate": 16000,
    "window": 400,
    "hop": 200,
    "fft": 512,
    "low_hz": 20,
    "high_hz": 8000,
    "low_db": -80,
    "high_db": 0,
}

FILE = ("submodels", 0, "variants", 0)
# name → (code or None, where, what stands there)
CHANGES: dict[str, tuple[str | None, tuple[str | int, ...], Any]] = {
    "valid-unknown-fields": (None, ("fusion", "colour"), {"deep": [1, 2.5, "é", None]}),
    "valid-whole-number-with-point": (None, ("version",), 2.0),
    "valid-expires": (None, ("expires",), "2031-02-28T23:59:59Z"),
    "valid-sound": (None, ("input", "sound"), SOUND),
    "version-next": ("bundle.version", ("schema",), 2),
    "version-text": ("bundle.version", ("schema",), "1"),
    "version-true": ("bundle.version", ("schema",), True),
    "path-absolute": ("bundle.path", (*FILE, "file"), "/etc/passwd"),
    "path-parent": ("bundle.path", (*FILE, "file"), "submodels/../../x"),
    "path-backslash": ("bundle.path", (*FILE, "file"), "submodels\\x"),
    "path-drive": ("bundle.path", (*FILE, "file"), "C:x"),
    "path-hidden": ("bundle.path", ("files", 0, "file"), "baselines/.teacher"),
    "path-empty": ("bundle.path", ("fusion", "file"), ""),
    "path-newline": ("bundle.path", ("fusion", "file"), "fusion.tflite\n"),
    "path-not-ascii": ("bundle.path", ("fusion", "file"), "fusión.tflite"),
    "path-of-a-test-vector": ("bundle.path", (*FILE, "test_vector"), "../vector"),
    "path-of-the-teacher": ("bundle.path", ("teacher", "file"), "../teacher"),
    "path-reserved-manifest": ("bundle.path", ("fusion", "file"), "manifest.json"),
    "path-reserved-report": ("bundle.path", ("fusion", "file"), "Report.html"),
    "duplicate-file": ("bundle.duplicate", ("fusion", "file"), "submodels/submodel-0.f32.tflite"),
    "duplicate-file-by-case": ("bundle.duplicate", ("fusion", "file"), "Vectors/0.safetensors"),
    "unlisted-test-vector": ("bundle.unlisted", (*FILE, "test_vector"), "vectors/1.safetensors"),
    "unlisted-teacher": ("bundle.unlisted", ("teacher", "file"), "baselines/other.tflite"),
    "schema-hash-in-capitals": ("bundle.schema", (*FILE, "sha256"), "A" * 64),
    "schema-hash-short": ("bundle.schema", ("fusion", "sha256"), "b" * 63),
    "schema-bytes-negative": ("bundle.schema", (*FILE, "bytes"), -1),
    "schema-bytes-beyond-2-gib": ("bundle.schema", (*FILE, "bytes"), 2**31),
    "schema-number-beyond-2-53": ("bundle.schema", ("version",), 2**53),
    "schema-text-for-a-number": ("bundle.schema", ("version",), "1"),
    "schema-true-for-a-number": ("bundle.schema", ("version",), True),
    "schema-fraction": ("bundle.schema", ("version",), 1.5),
    "schema-null-name": ("bundle.schema", ("name",), None),
    "schema-one-class": ("bundle.schema", ("classes",), ["circle"]),
    "schema-class-twice": ("bundle.schema", ("classes",), ["circle", "circle"]),
    "schema-class-with-escape": ("bundle.schema", ("classes", 0), "\x1b[2Jcircle"),
    "schema-no-submodels": ("bundle.schema", ("submodels",), []),
    "schema-no-variants": ("bundle.schema", ("submodels", 0, "variants"), []),
    "schema-unknown-format": ("bundle.schema", (*FILE, "format"), "int2"),
    "schema-two-channels": ("bundle.schema", ("input", "channels"), 2),
    "schema-test-split": ("bundle.schema", ("accuracies", "split"), "test"),
    "schema-temperature-zero": ("bundle.schema", ("fusion", "calibration", 0, "temperature"), 0),
    "expires-on-no-day": ("bundle.expires", ("expires",), "2031-02-30T00:00:00Z"),
    "classes-unknown": ("bundle.classes", ("submodels", 0, "classes", 0), "star"),
    "classes-uncovered": ("bundle.classes", ("submodels", 0, "classes"), ["circle"]),
    "schema-sound-key-missing": ("bundle.schema", ("input", "sound"), {"sample_rate": 16000}),
    "schema-sound-odd-window": ("bundle.schema", ("input", "sound"), {**SOUND, "window": 401}),
    "sound-short-fft": ("bundle.sound", ("input", "sound"), {**SOUND, "fft": 256}),
    "sound-bands-fall": ("bundle.sound", ("input", "sound"), {**SOUND, "low_hz": 8000}),
    "sound-beyond-half-the-rate": ("bundle.sound", ("input", "sound"), {**SOUND, "high_hz": 8001}),
    "sound-black-is-white": ("bundle.sound", ("input", "sound"), {**SOUND, "low_db": 0}),
    "sound-too-long": (
        "bundle.sound",
        ("input", "sound"),
        {**SOUND, "sample_rate": 1000, "hop": 65536, "high_hz": 500},
    ),
    "tensors-picture-size": ("bundle.tensors", ("input", "height"), 9),
    "tensors-float-picture": ("bundle.tensors", (*FILE, "inputs", 0, "dtype"), "float32"),
    "tensors-input-name": ("bundle.tensors", (*FILE, "inputs", 0, "name"), "input"),
    "tensors-no-feature": ("bundle.tensors", (*FILE, "outputs", 0, "name"), "features"),
    "tensors-too-many-logits": ("bundle.tensors", (*FILE, "outputs", 1, "shape"), [1, 4]),
    "order-unknown": ("bundle.order", ("fusion", "order"), ["submodel-1"]),
    "order-longer": ("bundle.order", ("fusion", "order"), ["submodel-0", "submodel-1"]),
    "calibration-wrong-number": ("bundle.calibration", ("fusion", "calibration", 0, "missing"), 1),
}


def changed(place: tuple[str | int, ...], value: Any) -> Any:
    """The valid manifest with one value replaced."""
    document: Any = copy.deepcopy(VALID)
    target = document
    for step in place[:-1]:
        target = target[step]
    target[place[-1]] = value
    return document


def texts(valid: bytes) -> Iterator[tuple[str, str | None, bytes]]:
    """Faults that no JSON writer makes: name, code, bytes."""
    yield "valid", None, valid
    yield "json-empty", "bundle.json", b""
    yield "json-cut", "bundle.json", valid[: len(valid) // 2]
    yield "json-key-twice", "bundle.json", valid.replace(b'"seed": 0', b'"seed": 0, "seed": 1')
    yield "json-key-twice-deep", "bundle.json", valid.replace(b'"macs": 20', b'"macs": 20, "macs": 21')
    yield "json-nan", "bundle.json", valid.replace(b'"fused": 0.8', b'"fused": NaN')
    yield "json-infinity", "bundle.json", valid.replace(b'"config": {}', b'"config": {"x": -Infinity}')
    yield "json-beyond-double", "bundle.json", valid.replace(b'"config": {}', b'"config": {"x": 1e999}')
    yield (
        "json-half-a-character",
        "bundle.json",
        valid.replace(b'"config": {}', b'"config": {"x": "\\ud800"}'),
    )
    yield "json-not-utf-8", "bundle.json", valid.replace(b'"config": {}', b'"config": {"x": "\xff"}')
    yield "json-byte-order-mark", "bundle.json", b"\xef\xbb\xbf" + valid
    yield "json-utf-16", "bundle.json", json.dumps(VALID).encode("utf-16")[:400]
    yield "json-trailing", "bundle.json", valid + b"{}"
    yield (
        "limit-depth",
        "bundle.limit",
        valid.replace(b'"config": {}', b'"config": ' + b'{"x":' * 40 + b"1" + b"}" * 40),
    )
    yield "schema-list", "bundle.schema", b"[]\n"
    yield "schema-null", "bundle.schema", b"null\n"
    yield (
        "schema-missing-key",
        "bundle.schema",
        json.dumps({k: v for k, v in VALID.items() if k != "seed"}).encode(),
    )


def main() -> None:
    """Write every manifest and the index, and remove those that are no longer made."""
    HERE.mkdir(exist_ok=True)
    for old in HERE.glob("*.json"):
        old.unlink()
    codes: dict[str, str | None] = {}
    valid = json.dumps(VALID).encode() + b"\n"
    for name, code, data in texts(valid):
        codes[f"{name}.json"] = code
        (HERE / f"{name}.json").write_bytes(data)
    for name, (code, place, value) in CHANGES.items():
        codes[f"{name}.json"] = code
        (HERE / f"{name}.json").write_text(json.dumps(changed(place, value)) + "\n", encoding="utf-8")
    (HERE / "index.json").write_text(json.dumps(codes, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
