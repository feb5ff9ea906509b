"""Training with rounded numbers starts from the same model; its weights bear being rounded."""

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from edvit_converters.check import check, keras_answers
from edvit_converters.compact import unpack
from edvit_converters.graph import fold_in_place
from edvit_converters.tflite import convert
from numpy.typing import NDArray

from edvit_tf.build.data import Dataset
from edvit_tf.build.quantisation import better_in_integers, train_quantised
from edvit_tf.build.retrain import group_data, with_weights
from edvit_tf.build.settings import ExportSettings
from edvit_tf.build.surgery import of_group
from edvit_tf.build.teacher import teacher_logits
from edvit_tf.build.training import Schedule
from edvit_tf.errors import UsageError
from edvit_tf.runtime.ensemble import run_many
from edvit_tf.vit.checkpoint import Checkpoint

GROUP = (0, 2, 5)


@pytest.fixture(scope="module")
def student(teacher: Checkpoint) -> Checkpoint:
    return of_group(teacher, GROUP)


def test_folding_changes_no_answer(student: Checkpoint, dataset: Dataset) -> None:
    images = dataset.validation.images[:16]
    folded = with_weights(student, fold_in_place(student.config, student.weights))
    assert (folded.weights["block_0_mlp_norm/gamma"] == 1).all()
    assert (folded.weights["block_1_attention_norm/beta"] == 0).all()
    before, after = keras_answers(student, images), keras_answers(folded, images)
    np.testing.assert_allclose(after.logits, before.logits, atol=1e-4)
    np.testing.assert_allclose(after.features, before.features, atol=1e-4)


def test_the_trained_model_is_as_right_in_integers(
    student: Checkpoint, teacher: Checkpoint, dataset: Dataset
) -> None:
    logits = teacher_logits(teacher, dataset.train.images, mirrored=False)
    data = group_data(dataset, logits, GROUP, distillation=0.5, others=1.0, balance=False, shift=2, seed=1)
    images = dataset.train.images[:32]
    trained, reached = train_quantised(
        student,
        data,
        Schedule(6, 32, 2e-3),
        images,
        matching=1.0,
        seed=1,
        report=lambda *_: None,
    )
    assert trained.weights.keys() == student.weights.keys()
    assert (trained.weights["block_0_mlp_norm/gamma"] == 1).all()  # frozen: folded again it stays what it is
    before = fold_in_place(student.config, student.weights)
    assert not np.array_equal(trained.weights["block_0_query/kernel"], before["block_0_query/kernel"])
    assert reached > 0.6
    flatbuffer = convert(trained, "int8-full", images)
    check(flatbuffer, "int8-full", trained.config, data.images, keras_answers(trained, data.images))
    right = run_many(flatbuffer, data.images).logits.argmax(axis=1) == data.labels
    assert float(np.mean(right)) == pytest.approx(reached, abs=0.05)


def test_what_was_trained_is_kept_only_where_it_is_better(
    student: Checkpoint, teacher: Checkpoint, dataset: Dataset
) -> None:
    logits = teacher_logits(teacher, dataset.train.images, mirrored=False)
    data = group_data(dataset, logits, GROUP, distillation=0.5, others=1.0, balance=False, shift=2, seed=1)
    images = dataset.train.images[:32]
    head = {name: 0 * weight for name, weight in student.weights.items() if name.startswith("head/")}
    spoiled = with_weights(student, {**student.weights, **head})
    kept, reached = better_in_integers((spoiled, student), data, images)
    assert kept is student
    assert reached[1] > reached[0]
    assert better_in_integers((student, student), data, images)[0] is student
    assert better_in_integers((student, spoiled), data, images)[0] is student


def test_zeros_and_rounding_are_not_for_one_export() -> None:
    with pytest.raises(UsageError, match="would fill the zeros"):
        ExportSettings(model="m", data="d", devices=1, out="o", sparsity="2:4", qat_epochs=1)


def test_the_flatbuffer_has_the_grids_of_the_training(student: Checkpoint, dataset: Dataset) -> None:
    """A scale for each output, its largest weight over 127, of the kernels that were trained folded."""
    weights = fold_in_place(student.config, student.weights)
    folded = with_weights(student, weights)
    model = unpack(convert(folded, "int8-full", dataset.train.images[:16]))
    stored = [
        np.asarray(tensor.quantization.scale)
        for tensor in model.subgraphs[0].tensors
        if tensor.type == schema.TensorType.INT8 and len(tensor.shape) == 2
    ]

    def trained(*layers: str) -> NDArray[np.float32]:
        return np.concatenate([np.abs(weights[f"{name}/kernel"]).max(axis=0) / 127 for name in layers])

    query = np.abs(weights["block_0_query/kernel"]).max(axis=0) * student.config.head_size**-0.5 / 127
    wanted = [np.concatenate([query, trained("block_0_key", "block_0_value")])]
    wanted += [trained(f"block_{index}_{name}") for index in (0, 1) for name in ("mlp_up", "mlp_down")]
    assert len(stored) == len(wanted)
    for scales in wanted:
        assert any(scales.shape == found.shape and np.allclose(scales, found, rtol=1e-3) for found in stored)
