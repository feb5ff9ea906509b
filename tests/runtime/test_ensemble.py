"""Every sub-model of the golden bundle over many pictures."""

import numpy as np
import pytest

from edvit_tf.bundle.reader import Bundle
from edvit_tf.errors import BundleError, DataError
from edvit_tf.runtime.ensemble import (
    BundleModels,
    accuracy,
    balanced_accuracy,
    evaluate,
    match_labels,
    run_many,
)
from edvit_tf.runtime.fusion import Fusion
from edvit_tf.runtime.interpreter import Flatbuffer
from tests.runtime.golden import SUBMODEL

IMAGES = np.random.default_rng(4).integers(0, 256, (23, 8, 8, 1), dtype=np.uint8)


@pytest.mark.parametrize("samples", [1, 2, 23])
def test_many_pictures_give_what_each_gives_alone(samples: int) -> None:
    loaded = Flatbuffer(SUBMODEL)
    alone = [loaded.run(image) for image in IMAGES[:samples]]
    together = run_many(SUBMODEL, IMAGES[:samples], threads=3)
    np.testing.assert_array_equal(together.features, [output.feature for output in alone])
    np.testing.assert_array_equal(together.logits, [output.logits for output in alone])


def test_fuses_picture_by_picture(bundle: Bundle) -> None:
    models = BundleModels(bundle)
    answers = models.answers(IMAGES)
    fused = models.fuse(answers)
    fusion = Fusion(bundle)
    for row in (0, 22):
        features = {name: answer.features[row] for name, answer in answers.items()}
        np.testing.assert_array_equal(fused[row], fusion.probabilities(features))


def test_a_format_can_be_chosen(bundle: Bundle) -> None:
    first, second = (BundleModels(bundle, name).answers(IMAGES) for name in ("f32", "int8"))
    assert not np.array_equal(first["submodel-0"].features, second["submodel-0"].features)
    with pytest.raises(BundleError):
        BundleModels(bundle, "int4-dynamic")


def test_evaluation_counts_what_each_model_says(bundle: Bundle) -> None:
    manifest = bundle.manifest
    assert manifest.single is not None
    said = run_many(bundle.file(manifest.teacher.file), IMAGES).logits.argmax(axis=1)
    single = run_many(bundle.file(manifest.single.file), IMAGES).logits.argmax(axis=1)
    models = BundleModels(bundle)
    answers = models.answers(IMAGES)
    alone = models.fuse({"submodel-1": answers["submodel-1"]}).argmax(axis=1)

    result = evaluate(bundle, IMAGES, said)

    assert result.samples == 23
    assert result.teacher == 1.0
    assert result.single == np.mean(single == said)
    assert result.fused == accuracy(models.fuse(answers), said)
    assert set(result.missing) == {"submodel-0", "submodel-1"}
    assert result.missing["submodel-0"] == np.mean(alone == said)


def test_accuracy_counts_rows() -> None:
    scores = np.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]], np.float32)
    assert accuracy(scores, np.array([1, 0, 0, 1])) == 0.5


def test_labels_are_matched_by_name() -> None:
    labels = match_labels(np.array([0, 1, 1]), ("bag", "coat"), ("coat", "shoe", "bag"))
    np.testing.assert_array_equal(labels, [2, 0, 0])
    with pytest.raises(DataError, match="hat"):
        match_labels(np.array([0]), ("hat",), ("coat", "shoe"))


def test_balanced_accuracy_counts_every_class_the_same() -> None:
    scores = np.eye(3, dtype=np.float32)[[0, 0, 0, 0, 1, 1]]
    labels = np.array([0, 0, 0, 0, 1, 2])
    assert accuracy(scores, labels) == pytest.approx(5 / 6)
    assert balanced_accuracy(scores, labels) == pytest.approx((1 + 1 + 0) / 3)
