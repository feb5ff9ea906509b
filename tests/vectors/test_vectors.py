"""The shared vectors, read by the Python reader and run by the interpreter that is installed."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from edvit_tf.bundle.codec import parse, serialise
from edvit_tf.bundle.reader import Bundle, open_bundle
from edvit_tf.errors import BundleError
from edvit_tf.runtime.check import verify
from edvit_tf.runtime.fusion import Fusion
from edvit_tf.runtime.interpreter import Flatbuffer
from tests.vectors import make_manifests

HERE = Path(__file__).parent
INDEX: Mapping[str, str | None] = json.loads((HERE / "manifests/index.json").read_text("utf-8"))
LARGEST_BYTES = 500_000  # it lies in everyone's clone


@pytest.fixture(scope="module")
def golden() -> Bundle:
    return open_bundle(HERE / "bundle")


def test_the_golden_bundle_is_written_again_byte_for_byte(golden: Bundle) -> None:
    assert serialise(golden.manifest) == golden.manifest_bytes


def test_the_golden_bundle_stays_small(golden: Bundle) -> None:
    assert sum(entry.bytes for entry in golden.manifest.every_file()) < LARGEST_BYTES


def test_the_int8_flatbuffers_are_really_quantised(golden: Bundle) -> None:
    for submodel in golden.manifest.submodels:
        assert submodel.variant("int8").bytes < 0.6 * submodel.variant("f32").bytes


@pytest.mark.parametrize("submodel", ["submodel-0", "submodel-1"])
@pytest.mark.parametrize("made_in", ["f32", "int8"])
def test_each_flatbuffer_answers_its_test_vector(golden: Bundle, submodel: str, made_in: str) -> None:
    variant = golden.manifest.submodel(submodel).variant(made_in)
    verdict = verify(golden.file(variant.file), golden.file(variant.test_vector))
    assert verdict.ok, verdict.reason


def test_the_manifest_says_what_the_flatbuffers_are(golden: Bundle) -> None:
    for submodel in golden.manifest.submodels:
        for variant in submodel.variants:
            model = Flatbuffer(golden.file(variant.file))
            assert model.inputs == variant.inputs
            assert sorted(model.outputs, key=lambda t: t.name) == sorted(
                variant.outputs, key=lambda t: t.name
            )
            assert set(model.operators()) == set(variant.operators)


def test_the_fusion_answers_as_recorded(golden: Bundle) -> None:
    recorded = json.loads((HERE / "fusion.json").read_text("utf-8"))
    fusion = Fusion(golden)
    features = {name: np.array(feature, np.float32) for name, feature in recorded["features"].items()}
    assert len(recorded["cases"]) == len(features) + 1
    answers = []
    for case in recorded["cases"]:
        given = {name: feature for name, feature in features.items() if name not in case["missing"]}
        answers.append(fusion.probabilities(given))
        np.testing.assert_allclose(answers[-1], case["probabilities"], atol=recorded["tolerance"])
    assert max(answer.max() for answer in answers) < 0.99, "saturated answers would hide a wrong temperature"


def test_the_baselines_run(golden: Bundle) -> None:
    manifest = golden.manifest
    assert manifest.single is not None
    picture = golden.vector(manifest.submodels[0].variant()).image
    for file in (manifest.teacher.file, manifest.single.file):
        assert Flatbuffer(golden.file(file)).run(picture).logits.shape == (len(manifest.classes),)


@pytest.mark.parametrize("name", INDEX)
def test_each_manifest_is_refused_with_its_code(name: str) -> None:
    data = (HERE / "manifests" / name).read_bytes()
    code = INDEX[name]
    if code is None:
        assert json.loads(serialise(parse(data))) == json.loads(data)
    else:
        with pytest.raises(BundleError) as raised:
            parse(data)
        assert raised.value.code == code
        assert raised.value.message.endswith(".")


def test_the_index_names_every_manifest() -> None:
    assert {path.name for path in (HERE / "manifests").glob("*.json")} == {*INDEX, "index.json"}


def test_the_manifests_are_those_that_the_script_makes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(make_manifests, "HERE", tmp_path)
    make_manifests.main()
    for name in (*INDEX, "index.json"):
        assert (tmp_path / name).read_bytes() == (HERE / "manifests" / name).read_bytes(), name
