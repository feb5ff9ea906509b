"""manifest.json: what is read is what is written, unknown fields included, and nothing else is read."""

import contextlib
import copy
import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edvit_tf.bundle.codec import parse, serialise, to_json
from edvit_tf.bundle.reader import open_bundle
from edvit_tf.bundle.strict_json import LARGEST_BYTES, LARGEST_DEPTH
from edvit_tf.errors import BundleError
from tests.bundle.toy import make_manifest


def refusal(data: bytes) -> BundleError:
    with pytest.raises(BundleError) as raised:
        parse(data)
    message = raised.value.message
    assert message.endswith(".")
    assert "\n" not in message
    assert len(message) < 700
    assert message.isprintable()
    return raised.value


@pytest.fixture
def data(bundle: Path) -> bytes:
    return (bundle / "manifest.json").read_bytes()


@pytest.fixture
def document(data: bytes) -> Any:
    return json.loads(data)


def test_a_manifest_comes_back_as_it_was_written(data: bytes) -> None:
    manifest = parse(data)
    assert serialise(manifest) == data
    assert parse(serialise(manifest)) == manifest
    assert json.loads(data) == to_json(manifest)


def test_the_bytes_are_pinned() -> None:
    """Another language must come to the same bytes: two spaces, sorted keys, real characters, one newline."""
    document = example()
    document["fusion"]["calibration"] = [{"missing": m, "temperature": 1.5, "unit": "é"} for m in (0, 1)]
    written = serialise(parse(json.dumps(document).encode())).decode()
    golden = """{
  "accuracies": {
    "fused": 0.85,
    "missing": {
      "submodel-0": 0.5,
      "submodel-1": 0.55
    },
    "single": 0.7,
    "split": "validation",
    "teacher": 0.9,
    "variants": {
      "submodels/submodel-0.f32.tflite": 0.95
    }
  },
"""
    assert written.startswith(golden)
    assert (
        '      {\n        "missing": 1,\n        "temperature": 1.5,\n        "unit": "é"\n      }\n    ],'
        in written
    )
    assert written.endswith('  "version": 3\n}\n')


def test_the_order_of_the_keys_does_not_matter(document: Any) -> None:
    def turned(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: turned(value[key]) for key in reversed(value)}
        return [turned(item) for item in value] if isinstance(value, list) else value

    assert parse(json.dumps(turned(document)).encode()) == parse(json.dumps(document).encode())


def test_numbers_come_out_as_what_they_are(document: Any) -> None:
    document["version"] = 3.0
    document["accuracies"]["teacher"] = 1
    manifest = parse(json.dumps(document).encode())
    assert (type(manifest.version), manifest.version) == (int, 3)
    assert (type(manifest.accuracies.teacher), manifest.accuracies.teacher) == (float, 1.0)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)
unknown_fields = st.dictionaries(st.text("xyz_", min_size=1, max_size=6), json_values, max_size=4)
places = st.sampled_from(
    [
        (),
        ("input",),
        ("submodels", 0),
        ("submodels", 1, "variants", 0),
        ("submodels", 1, "variants", 0, "outputs", 1),
        ("fusion",),
        ("fusion", "calibration", 0),
        ("files", 0),
        ("teacher",),
        ("single",),
        ("accuracies",),
        ("config",),
    ]
)


def example() -> Any:
    """A complete document, without a folder: the hashes are of nothing."""
    manifest = to_json(make_manifest())
    for part in [manifest["fusion"], *(v for s in manifest["submodels"] for v in s["variants"])]:
        part.update(sha256="a" * 64, bytes=10)
    vectors = [v["test_vector"] for s in manifest["submodels"] for v in s["variants"]]
    names = [*vectors, manifest["teacher"]["file"], manifest["single"]["file"]]
    manifest["files"] = [{"file": name, "sha256": "b" * 64, "bytes": 5} for name in names]
    return manifest


@given(places, unknown_fields)
def test_unknown_fields_survive_a_round_trip(place: tuple[str | int, ...], unknown: dict[str, Any]) -> None:
    document = example()
    target = document
    for step in place:
        target = target[step]
    target.update(unknown)
    again = json.loads(serialise(parse(json.dumps(document).encode())))
    assert again == document


def test_a_field_of_the_name_extra_is_unknown_like_any_other() -> None:
    document = example()
    document["extra"] = {"extra": 1}
    assert json.loads(serialise(parse(json.dumps(document).encode()))) == document


@given(st.binary(max_size=200))
def test_any_bytes_give_a_manifest_or_a_bundle_error(data: bytes) -> None:
    with pytest.raises(BundleError):
        parse(data)


@given(st.data())
def test_a_manifest_with_any_one_value_changed_gives_a_manifest_or_a_bundle_error(
    draw: st.DataObject,
) -> None:
    document = example()
    target: Any = document
    while True:
        keys = list(target) if isinstance(target, dict) else list(range(len(target)))
        if not keys:
            break
        key = draw.draw(st.sampled_from(keys))
        if not isinstance(target[key], dict | list) or draw.draw(st.integers(0, 3)) == 0:
            target[key] = draw.draw(json_values)
            break
        target = target[key]
    changed = json.dumps(document).encode()
    manifest = None
    with contextlib.suppress(BundleError):
        manifest = parse(changed)
    if manifest is None:
        refusal(changed)
    else:
        assert json.loads(serialise(manifest)) == document


def test_a_key_twice_is_refused(data: bytes) -> None:
    twice = data.replace(b'"seed": 7', b'"seed": 7, "seed": 8')
    error = refusal(twice)
    assert error.code == "bundle.json"
    assert "'seed' appears twice" in error.message


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e999", b"9" * 5000])
def test_what_is_no_number_is_refused(data: bytes, number: bytes) -> None:
    assert refusal(data.replace(b'"sparsity": 0.3', b'"sparsity": ' + number)).code == "bundle.json"


@pytest.mark.parametrize("text", [b'"\\ud800"', b'["\\udfff"]', b'"\xff"', b'"\x01"'])
def test_what_is_no_text_is_refused(data: bytes, text: bytes) -> None:
    assert refusal(data.replace(b'"sparsity": 0.3', b'"sparsity": ' + text)).code == "bundle.json"


def test_a_byte_order_mark_and_other_encodings_are_refused(data: bytes) -> None:
    assert refusal(b"\xef\xbb\xbf" + data).code == "bundle.json"
    assert refusal(data.decode().encode("utf-16")).code == "bundle.json"


def test_size_and_depth_are_bounded(data: bytes) -> None:
    assert refusal(b" " * (LARGEST_BYTES + 1)).code == "bundle.limit"
    assert refusal(b"[" * LARGEST_BYTES).code == "bundle.limit"
    deep = b'{"a":' * LARGEST_DEPTH + b"1" + b"}" * LARGEST_DEPTH
    assert refusal(data.replace(b'"sparsity": 0.3', b'"sparsity": ' + deep)).code == "bundle.limit"
    brackets = json.dumps("[{" * 1000 + '\\"').encode()
    assert parse(data.replace(b'"sparsity": 0.3', b'"sparsity": ' + brackets)).config["sparsity"]


@pytest.mark.parametrize(
    "hostile",
    [
        b'"' + b'\\"' * (LARGEST_BYTES // 2 - 1),
        b"{" + b",".join(b'"k":1' for _ in range(600_000)) + b"}",
        b'{"schema":1,"classes":[' + b",".join(b'"%d"' % i for i in range(400_000)) + b"]}",
    ],
    ids=["one string", "one key", "many classes"],
)
def test_the_largest_hostile_manifest_is_refused_in_seconds(hostile: bytes) -> None:
    began = time.perf_counter()
    refusal(hostile)
    assert time.perf_counter() - began < 10


@pytest.mark.parametrize("schema", [0, 2, "1", None, True, 1.0, [1], {"a": "\x1b[2J"}])
def test_an_unknown_schema_says_which_and_what_to_do(document: Any, schema: object) -> None:
    document["schema"] = schema
    error = refusal(json.dumps(document).encode())
    assert error.code == "bundle.version"
    assert "install a newer edvit-tf" in error.message


@pytest.mark.parametrize("text", [b"[]", b"null", b"{}", b'"manifest"', b'{"name": "toy"}'])
def test_json_that_is_no_manifest(text: bytes) -> None:
    assert refusal(text).code == "bundle.schema"


@pytest.mark.parametrize(
    "name",
    [
        *("/etc/passwd", "../x", "a/../b", "a\\b", "C:x", "a//b", "a/", ".hidden", "a/.b", ""),
        *("a\nb", "a/b/c/d/e", "ä", "x" * 101, "manifest.json", "Manifest.JSON", "report.html"),
    ],
)
@pytest.mark.parametrize(
    "place", [("fusion", "file"), ("files", 0, "file"), ("submodels", 0, "variants", 1, "file")], ids=str
)
def test_a_name_that_leaves_the_bundle_is_refused(place: tuple[str | int, ...], name: str) -> None:
    document = example()
    target = document
    for step in place[:-1]:
        target = target[step]
    target[place[-1]] = name
    assert refusal(json.dumps(document).encode()).code == "bundle.path"


@pytest.mark.parametrize("part", ["teacher", "single"])
def test_the_baselines_names_are_checked_too(part: str) -> None:
    document = example()
    document[part]["file"] = "../teacher.tflite"
    assert refusal(json.dumps(document).encode()).code == "bundle.path"
    document[part]["file"] = "baselines/other.tflite"
    error = refusal(json.dumps(document).encode())
    assert error.code == "bundle.unlisted"
    assert "baselines/other.tflite" in error.message


def change(document: Any, *steps: Any) -> bytes:
    """The document with the value at a path of keys replaced by the last argument."""
    *place, key, value = steps
    document = copy.deepcopy(document)
    target = document
    for step in place:
        target = target[step]
    target[key] = value
    return json.dumps(document).encode()


VARIANT = ("submodels", 0, "variants", 0)
OUTPUTS = (*VARIANT, "outputs")


@pytest.mark.parametrize(
    ("steps", "code"),
    [
        (("name", "a b"), "bundle.schema"),
        (("version", 0), "bundle.schema"),
        (("version", 2**53), "bundle.schema"),
        (("classes", ["Shirt"]), "bundle.schema"),
        (("classes", ["Shirt", "Shirt", "Bag", "Trouser"]), "bundle.schema"),
        (("classes", 0, "Shi\x1brt"), "bundle.schema"),
        (("input", "channels", 2), "bundle.schema"),
        (("key_id", "xyz"), "bundle.schema"),
        (("accuracies", "split", "test"), "bundle.schema"),
        ((*VARIANT, "format", "int3"), "bundle.schema"),
        ((*VARIANT, "sha256", "A" * 64), "bundle.schema"),
        ((*VARIANT, "bytes", -1), "bundle.schema"),
        ((*VARIANT, "runtimes", {"ai-edge-litert": "new"}), "bundle.schema"),
        (("fusion", "calibration", 0, "temperature", 0), "bundle.schema"),
        (("fusion", "calibration", 0, "temperature", 10**400), "bundle.schema"),
        (("submodels", []), "bundle.schema"),
        (("files", [{"file": "a", "sha256": "b" * 64, "bytes": 1}] * 5000), "bundle.schema"),
        (("expires", "2026-13-45T00:00:00Z"), "bundle.expires"),
        (("classes", ["Shirt", "Trouser", "Bag", "Hat"]), "bundle.classes"),
        (("submodels", 0, "classes", ["Shirt"]), "bundle.classes"),
        (("submodels", 0, "classes", ["Shirt", "Bag"]), "bundle.classes"),
        (("submodels", 1, "id", "submodel-0"), "bundle.duplicate"),
        ((*VARIANT, "format", "int8"), "bundle.duplicate"),
        ((*VARIANT, "file", "submodels/submodel-0.int8.tflite"), "bundle.duplicate"),
        ((*VARIANT, "file", "FUSION.tflite"), "bundle.duplicate"),
        ((*VARIANT, "test_vector", "vectors/none.safetensors"), "bundle.unlisted"),
        ((*VARIANT, "inputs", 0, "name", "picture"), "bundle.tensors"),
        ((*VARIANT, "inputs", 0, "dtype", "float32"), "bundle.tensors"),
        ((*VARIANT, "inputs", 0, "shape", [1, 8, 9, 1]), "bundle.tensors"),
        ((*OUTPUTS, 0, "name", "logits"), "bundle.tensors"),
        ((*OUTPUTS, 0, "dtype", "int8"), "bundle.tensors"),
        ((*OUTPUTS, 0, "shape", [8]), "bundle.tensors"),
        ((*OUTPUTS, 0, "shape", [1, 16]), "bundle.tensors"),
        ((*OUTPUTS, 1, "shape", [1, 5]), "bundle.tensors"),
        (("fusion", "order", ["submodel-0"]), "bundle.order"),
        (("fusion", "order", ["submodel-0", "submodel-7"]), "bundle.order"),
        (("fusion", "calibration", 1, "missing", 2), "bundle.calibration"),
        (("fusion", "calibration", 1, "missing", 0), "bundle.calibration"),
    ],
    ids=str,
)
def test_each_fault_has_its_code(steps: tuple[Any, ...], code: str) -> None:
    assert refusal(change(example(), *steps)).code == code


@pytest.mark.parametrize("key", sorted(example()))
def test_each_key_is_needed(key: str) -> None:
    document = example()
    del document[key]
    error = refusal(json.dumps(document).encode())
    assert error.code == "bundle.schema"


def test_messages_carry_nothing_that_a_terminal_obeys() -> None:
    document = example()
    document["accuracies"]["variants"]["\x1b[2J\n"] = "\x1b[31m"
    refusal(json.dumps(document).encode())


def test_looking_up_a_submodel_and_a_variant() -> None:
    manifest = parse(json.dumps(example()).encode())
    submodel = manifest.submodel("submodel-1")
    assert submodel.classes == ("Trouser", "Bag")
    assert submodel.variant().format == "f32"
    assert submodel.variant("int8").file == "submodels/submodel-1.int8.tflite"
    assert (submodel.feature_size, submodel.variant().logits_size) == (8, 3)
    assert submodel.variant().memory_bytes == 2 * 10 + 4096
    assert manifest.fusion.temperature(1) == 2.0
    with pytest.raises(BundleError, match="submodel-0, submodel-1"):
        manifest.submodel("submodel-9")
    with pytest.raises(BundleError, match="f32, int8"):
        submodel.variant("f16")


def test_the_reader_needs_no_tensorflow(bundle: Path) -> None:
    import subprocess

    code = f"""
import sys
from edvit_tf.bundle.reader import open_bundle
open_bundle({str(bundle)!r})
assert not [name for name in sys.modules if name.split(".")[0] in ("tensorflow", "keras", "tf_keras")]
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert open_bundle(bundle).manifest.name == "toy"
