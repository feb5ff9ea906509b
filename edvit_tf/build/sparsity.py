"""TF-MOT magnitude pruning of what surgery left: zeros inside the Dense kernels, growing while it trains."""

from collections.abc import Callable
from typing import Any

import numpy as np

from edvit_tf.build.resume import Snapshots
from edvit_tf.build.retrain import GroupData, with_weights
from edvit_tf.build.training import Forward, Schedule, fit, steps_of
from edvit_tf.errors import EdvitError
from edvit_tf.vit.checkpoint import Checkpoint, Weights
from edvit_tf.vit.keras import keras
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

    Args:
        student: a retrained sub-model.
        data: of its group.
        schedule: of this stage.
        sparsity: share of zeros in every Dense kernel at the end, 0 to below 1, or `TWO_OF_FOUR`.
        seed: decides the order of pictures and their augmentation.
        report: told the share done and a few words after every epoch.
        snapshots: where an interrupted training is taken up again.

    Returns:
        The model with its zeros, TF-MOT's wrappers taken off again, and its validation accuracy.
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

    def wrap(layer: Any) -> Any:
        if isinstance(layer, keras.layers.Dense):
            return tfmot.sparsity.keras.prune_low_magnitude(layer, pruning_schedule=decay, **pattern)
        return layer.__class__.from_config(layer.get_config())

    plain = from_checkpoint(student)
    model = keras.models.clone_model(plain, clone_function=wrap)
    _copy_weights(plain, model)
    pruning = tfmot.sparsity.keras.UpdatePruningStep()
    pruning.set_model(model)
    pruning.on_train_begin()
    forward = Forward(model)
    reached = -1.0

    def after_epoch(epoch: int) -> None:
        nonlocal reached
        pruning.on_epoch_end(epoch)  # puts the zeros back that the last step's update filled
        reached = data.judge(forward(data.images)["logits"], data.labels)
        report(epoch / epochs, f"epoch {epoch} of {epochs}, validation {reached:.2%}")

    fit(
        model,
        data.own_examples.batches(batch, data.choose),
        steps,
        schedule,
        seed=seed,
        before_step=lambda: pruning.on_train_batch_begin(0),
        after_epoch=after_epoch,
        snapshots=snapshots,
    )
    weights = read_weights(tfmot.sparsity.keras.strip_pruning(model))
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


def _copy_weights(plain: Any, wrapped: Any) -> None:
    for source, target in zip(plain.layers, wrapped.layers, strict=True):
        inner = getattr(target, "layer", target)  # TF-MOT's wrapper keeps the layer it wraps as `layer`
        inner.set_weights(source.get_weights())
