"""A student that an Edge TPU can run whole stands for a sub-model, and one fusion reads both."""

from pathlib import Path

import numpy as np
import pytest
from edvit_converters.targets import report
from edvit_converters.vit_b import SUBMODEL

from edvit_tf.build.coral import build_student, serving_student, student_of
from edvit_tf.build.data import load_test
from edvit_tf.build.export import export
from edvit_tf.build.fusion import any_kind
from edvit_tf.build.progress import Silent
from edvit_tf.build.settings import ExportSettings
from edvit_tf.bundle.reader import Bundle, open_bundle
from edvit_tf.runtime.ensemble import BundleModels, evaluate
from edvit_tf.vit.checkpoint import Checkpoint, save
from edvit_tf.vit.model import read_weights, write_weights
from tests.build.conftest import CONFIG


@pytest.fixture(scope="module")
def bundle(teacher: Checkpoint, data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("coral")
    save(folder / "toy-vit.safetensors", teacher)
    settings = ExportSettings(
        model=str(folder / "toy-vit.safetensors"),
        data=str(data_folder),
        devices=2,
        out=str(folder / "bundle"),
        format="int8,edgetpu",
        target="coral",
        share=0.9,
        widths="uniform",
        common_epochs=0,
        epochs=20,
        fusion_epochs=20,
        batch=32,
        rate=5e-3,
    )
    return open_bundle(export(settings, Silent()))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_each_sub_model_comes_in_both(bundle: Bundle) -> None:
    for submodel in bundle.manifest.submodels:
        assert [(v.format, v.target) for v in submodel.variants] == [("int8", "any"), ("edgetpu", "coral")]
        assert submodel.variants[0].outputs == submodel.variants[1].outputs


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_edge_tpu_would_run_it_whole(bundle: Bundle) -> None:
    for submodel in bundle.manifest.submodels:
        flatbuffer = bundle.file(submodel.variant("edgetpu").file).read_bytes()
        assert {placement.operator for placement in report(flatbuffer, "coral").fallen_back} == {"DEQUANTIZE"}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_group_fails_over_from_one_to_the_other(bundle: Bundle, data_folder: Path) -> None:
    test, _ = load_test(str(data_folder), seed=0, image=CONFIG.image)
    images, labels = np.asarray(test.images), np.asarray(test.labels)
    ours = evaluate(bundle, images, labels, variant="int8").fused
    students = evaluate(bundle, images, labels, variant="edgetpu").fused
    assert min(ours, students) > 0.7
    models = {name: BundleModels(bundle, name) for name in ("int8", "edgetpu")}
    mixed = models["int8"].answers(images) | {"submodel-0": models["edgetpu"].answers(images)["submodel-0"]}
    right = models["int8"].fuse(mixed).argmax(axis=1) == labels
    assert float(np.mean(right)) > min(ours, students) - 0.1


def test_the_norms_are_folded_exactly() -> None:
    config = student_of(CONFIG)
    model = build_student(config)
    generator = np.random.default_rng(0)
    weights = {
        name: weight + generator.uniform(0.1, 0.5, weight.shape).astype(np.float32)
        for name, weight in read_weights(model).items()
    }
    write_weights(model, weights)
    images = generator.integers(0, 256, (3, 8, 8, 1), dtype=np.uint8)
    expected = model.predict_on_batch(images)
    serve = serving_student(config, weights)
    for index in range(len(images)):
        found = serve(images[index : index + 1].astype(np.float32))
        np.testing.assert_allclose(found["feature"].numpy()[0], expected["feature"][index], rtol=1e-4)
        np.testing.assert_allclose(found["logits"].numpy()[0], expected["logits"][index], rtol=1e-4)


def test_a_student_is_no_larger_than_what_it_stands_for() -> None:
    config = student_of(SUBMODEL)
    assert config.parameters <= SUBMODEL.parameters
    assert all(filters % 8 == 0 for filters in config.filters)
    assert (config.width, config.classes) == (SUBMODEL.width, SUBMODEL.classes)


def test_the_fusion_sees_every_mixture() -> None:
    features = np.stack([np.zeros((64, 5), np.float32), np.ones((64, 5), np.float32)], axis=1)
    seen = any_kind(features, (2, 3), np.random.default_rng(0))
    assert {tuple(row) for row in seen[:, [0, 2]].tolist()} == {(0, 0), (0, 1), (1, 0), (1, 1)}
    np.testing.assert_array_equal(seen[:, 0], seen[:, 1])
