"""TF-MOT magnitude pruning of what surgery left: zeros inside the Dense kernels, growing while it trains."""

from collections.abc import Callable

import numpy as np

from edvit_tf.build.resume import Snapshots
from edvit_tf.build.retrain import GroupData, with_weights
from edvit_tf.build.training import Forward, Schedule, fit, steps_of
from edvit_tf.errors import EdvitError
from edvit_tf.vit.checkpoint import Checkpoint, Weights
from edvit_tf.vit.keras import keras, tf
from edvit_tf.vit.model import from_checkpoint, read_weights

TWO_OF_FOUR = "2:4"
"""Two zeros in each four inputs of every unit, the pattern that some hardware skips."""

_SHARE_OF_STEPS = 0.6  # the rest of the stage is for recovering with the zeros fixed
_PRUNINGS = 20


def sparsify(
    student: Checkpoint,
    data: GroupData,
    schedule: Schedule,
    sparsity: float | str,
    *,
    seed: int,
    report: Callable[[float, str], None],
    snapshots: Snapshots | None = None,
) -> tuple[Checkpoint, float]:
    """Train on while `PolynomialDecay` sets the smallest weights of every Dense kernel to zero.

    TF-MOT's wrappers stand beside the model and not in it: its step stays the one that retraining compiled.

    Args:
        student: a retrained sub-model.
        data: of its group.
        schedule: of this stage.
        sparsity: share of zeros in every Dense kernel at the end, 0 to below 1, or `TWO_OF_FOUR`.
        seed: decides the order of pictures and their augmentation.
        report: told the share done and a few words after every epoch.
        snapshots: where an interrupted training is taken up again.

    Returns:
        The model with its zeros, and its validation accuracy.
    """
    import tensorflow_model_optimization as tfmot

    keras.utils.set_random_seed(seed)
    batch, epochs = schedule.batch, schedule.epochs
    steps = steps_of(data.rows, batch)
    last = max(1, round(steps * epochs * _SHARE_OF_STEPS))
    share = 0.5 if isinstance(sparsity, str) else sparsity
    # The default frequency of 100 prunes nothing in a run of fewer than 100 steps, and says nothing.
    decay = tfmot.sparsity.keras.PolynomialDecay(
        initial_sparsity=0.0,
        final_sparsity=share,
        begin_step=0,
        end_step=last,
        frequency=max(1, last // _PRUNINGS),
    )
    pattern = {"sparsity_m_by_n": (2, 4)} if isinstance(sparsity, str) else {}

    model = from_checkpoint(student)
    pruned = [
        tfmot.sparsity.keras.prune_low_magnitude(layer, pruning_schedule=decay, **pattern)
        for layer in model.layers
        if isinstance(layer, keras.layers.Dense)
    ]
    for wrapper in pruned:
        wrapper.build(wrapper.layer.input_shape)
        wrapper.pruning_step.assign(0)

    @tf.function  # type: ignore[untyped-decorator]
    def update_masks() -> None:
        for wrapper in pruned:
            wrapper.pruning_step.assign_add(1)
            wrapper.pruning_obj.conditional_mask_update()

    @tf.function  # type: ignore[untyped-decorator]
    def set_zeros() -> None:
        for wrapper in pruned:
            wrapper.pruning_obj.weight_mask_op()

    def before_step() -> None:
        update_masks()
        set_zeros()

    forward = Forward(model)
    reached = -1.0

    def after_epoch(epoch: int) -> None:
        nonlocal reached
        set_zeros()  # that the last step's update filled
        reached = data.judge(forward(data.images)["logits"], data.labels)
        report(epoch / epochs, f"epoch {epoch} of {epochs}, validation {reached:.2%}")

    fit(
        model,
        data.own_examples.batches(batch, data.choose),
        steps,
        schedule,
        seed=seed,
        before_step=before_step,
        after_epoch=after_epoch,
        beside=[variable for wrapper in pruned for variable in wrapper.non_trainable_variables],
        snapshots=snapshots,
    )
    weights = read_weights(model)
    check_sparsity(weights, share)
    if isinstance(sparsity, str):
        check_two_of_four(weights)
    return with_weights(student, weights), reached


def sparsity_of(weights: Weights) -> dict[str, float]:
    """Share of zeros in every Dense kernel, by name."""
    kernels = {name: w for name, w in weights.items() if name.endswith("/kernel") and w.ndim == 2}
    return {name: float(np.mean(kernel == 0)) for name, kernel in kernels.items()}


def check_sparsity(weights: Weights, sparsity: float) -> None:
    """Hold every Dense kernel against the sparsity asked for, to within one weight.

    Raises:
        EdvitError: a kernel has fewer zeros.
    """
    for name, reached in sparsity_of(weights).items():
        if reached < sparsity - 1.0 / weights[name].size:
            raise EdvitError(
                f"{name} reached a sparsity of {reached:.3f}, not {sparsity}: train it for more steps"
            )


def check_two_of_four(weights: Weights) -> None:
    """Hold every Dense kernel [inputs, units] against two zeros in each whole four of a unit's inputs.

    Raises:
        EdvitError: a four has fewer zeros.
    """
    for name in sparsity_of(weights):
        kernel = weights[name]
        fours = kernel[: len(kernel) // 4 * 4].T.reshape(-1, 4)
        if ((fours == 0).sum(axis=1) < 2).any():
            raise EdvitError(f"{name} has fours with fewer than two zeros: train it for more steps")
