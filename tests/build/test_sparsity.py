import numpy as np
import pytest

from edvit_tf.build.data import Dataset
from edvit_tf.build.retrain import group_data
from edvit_tf.build.sparsity import check_sparsity, check_two_of_four, sparsify, sparsity_of
from edvit_tf.build.surgery import of_group
from edvit_tf.build.teacher import teacher_logits
from edvit_tf.build.training import Schedule
from edvit_tf.errors import EdvitError
from edvit_tf.vit.checkpoint import Checkpoint

GROUP = (0, 2, 5)


def test_a_run_far_below_a_hundred_steps_reaches_its_sparsity(teacher: Checkpoint, dataset: Dataset) -> None:
    student = of_group(teacher, GROUP)
    logits = teacher_logits(teacher, dataset.train.images, mirrored=False)
    data = group_data(dataset, logits, GROUP, distillation=0.5, others=1.0, balance=False, shift=2, seed=1)
    schedule = Schedule(epochs=8, batch=32, rate=2e-3)
    sparse, reached = sparsify(student, data, schedule, 0.5, seed=1, report=lambda *_: None)
    assert sparse.weights.keys() == student.weights.keys()
    for name, share in sparsity_of(sparse.weights).items():
        assert share == pytest.approx(0.5, abs=1.5 / sparse.weights[name].size)
    assert (sparse.weights["patch_embedding/kernel"] != 0).all()  # only Dense kernels are pruned
    assert reached > 0.6
    changed = sparse.weights["block_0_mlp_up/kernel"]
    assert not np.array_equal(changed[changed != 0], student.weights["block_0_mlp_up/kernel"][changed != 0])


def test_two_of_each_four_inputs_are_zero(teacher: Checkpoint, dataset: Dataset) -> None:
    student = of_group(teacher, GROUP)
    logits = teacher_logits(teacher, dataset.train.images, mirrored=False)
    data = group_data(dataset, logits, GROUP, distillation=0.5, others=1.0, balance=False, shift=2, seed=1)
    sparse, _ = sparsify(student, data, Schedule(2, 32, 2e-3), "2:4", seed=1, report=lambda *_: None)
    check_two_of_four(sparse.weights)
    assert sparsity_of(sparse.weights)["block_0_mlp_up/kernel"] == 0.5
    with pytest.raises(EdvitError, match="fours with fewer than two zeros"):
        check_two_of_four(teacher.weights)


def test_too_few_zeros_are_noticed(teacher: Checkpoint) -> None:
    with pytest.raises(EdvitError, match=r"reached a sparsity of 0\.000, not 0\.3"):
        check_sparsity(teacher.weights, 0.3)
    check_sparsity(teacher.weights, 0.0)
