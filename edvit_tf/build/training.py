"""The training loop that teacher, sub-models and fusion share, and the forward pass over many pictures.

Both are compiled by XLA for one batch size. All randomness comes from seeds that are passed in.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edvit_tf.build.augment import Augment
from edvit_tf.build.grouping import Choose
from edvit_tf.build.resume import Best, Snapshots
from edvit_tf.errors import TrainingError
from edvit_tf.vit.keras import keras, tf
from edvit_tf.vit.layers import Attention

MAX_SHIFT = 2
_FORWARD_BATCH = 500
_FORWARD_PIXELS = 4_000_000
_STEP_NUMBERS = 200_000_000  # activations that a step keeps for its gradient at once, four bytes each
_WITHOUT_DECAY = ["bias", "gamma", "beta", "token", "positions"]

Batches = Callable[[np.random.Generator], Iterator[tuple[Any, NDArray[np.float32]]]]
Loss = Callable[[Any, Any], Any]
"""Of a model's answer and the targets f32 [b, …], a scalar tensor."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast to train: AdamW with a linear warm-up and a cosine down to zero.

    Attributes:
        epochs: passes over the examples.
        batch: examples a step.
        rate: highest learning rate.
        weight_decay: decoupled, on kernels only.
        warm_up: share of all steps during which the rate rises.
        cool_down: whether it falls to zero afterwards, or stays for a training that goes on from here.
    """

    epochs: int
    batch: int = 128
    rate: float = 1e-3
    weight_decay: float = 0.05
    warm_up: float = 0.1
    cool_down: bool = True


@dataclass(frozen=True, slots=True)
class Examples:
    """Pictures and what a model should say of them.

    Attributes:
        images: uint8 [n, height, width, channels].
        targets: probabilities f32 [n, views, classes]; view 0 is for the picture and view 1, where there is
            one, for its mirror image. Without a view 1 pictures are not mirrored in training.
        shift: pixels that a picture is moved by at most in training, either way.
    """

    images: NDArray[np.uint8]
    targets: NDArray[np.float32]
    shift: int = MAX_SHIFT

    def __len__(self) -> int:
        return len(self.images)

    def batches(self, size: int, choose: Choose | None = None, augment: Augment | None = None) -> Batches:
        """Epochs in random order, each picture moved a little and, where it may be, mirrored.

        `choose` gives the rows of an epoch, all of them by default; `augment` changes each batch once more.
        What is left over after the last whole batch waits for another epoch.
        """

        def epoch(generator: np.random.Generator) -> Iterator[tuple[Any, NDArray[np.float32]]]:
            rows = np.arange(len(self)) if choose is None else choose(generator)
            order = generator.permutation(rows)
            count = min(size, len(order))
            for start in range(0, len(order) - count + 1, count):
                chosen = order[start : start + count]
                view = generator.integers(0, self.targets.shape[1], count)
                images = self.images[chosen]
                images = np.where((view == 1)[:, None, None, None], images[:, :, ::-1], images)
                moved, targets = move(images, self.shift, generator), self.targets[chosen, view]
                yield (moved, targets) if augment is None else augment(moved, targets, generator)

        return epoch


def steps_of(rows: int, batch: int) -> int:
    """Whole batches in an epoch of so many rows; one smaller batch when there are too few."""
    return rows // min(batch, rows)


def move(images: NDArray[np.uint8], most: int, generator: np.random.Generator) -> NDArray[np.uint8]:
    """Move each picture of [b, h, w, c] by up to `most` pixels either way, its edge filling the gap."""
    count, height, width, _ = images.shape
    down, right = generator.integers(-most, most + 1, (2, count, 1))
    rows = np.clip(np.arange(height) + down, 0, height - 1)
    columns = np.clip(np.arange(width) + right, 0, width - 1)
    moved: NDArray[np.uint8] = images[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return moved


def one_hot(labels: NDArray[np.int64], classes: int, smoothing: float = 0.0) -> NDArray[np.float32]:
    """Targets f32 [n, classes]: 1 at the label, `smoothing` of it spread over all classes."""
    return (np.eye(classes)[labels] * (1 - smoothing) + smoothing / classes).astype(np.float32)


def cross_entropy(answer: Any, targets: Any) -> Any:
    """Mean over a batch of the cross-entropy with targets f32 [b, classes].

    With targets of probabilities it is KL(target ‖ answer) up to a constant, so a mixture of label and
    teacher as target is the sum of both losses.

    Args:
        answer: logits f32 [b, classes], or a dict that has them under `logits`.
        targets: probabilities.
    """
    logits = answer["logits"] if isinstance(answer, dict) else answer
    return tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(targets, logits))


def fit(
    model: Any,
    batches: Batches,
    steps: int,
    schedule: Schedule,
    *,
    seed: int,
    loss: Loss = cross_entropy,
    before_step: Callable[[], None] | None = None,
    after_epoch: Callable[[int], None] | None = None,
    best: Best | None = None,
    beside: Sequence[Any] = (),
    snapshots: Snapshots | None = None,
    jit_compile: bool = True,
) -> None:
    """Train a Keras model in place.

    Args:
        model: answers with what the loss takes.
        batches: one epoch of (inputs, targets) for a generator.
        steps: batches in an epoch.
        schedule: epochs, learning rate and so on.
        seed: decides the order of examples and their augmentation.
        loss: of the model's answer and the targets.
        before_step: called before every step.
        after_epoch: called with the number of epochs done, after each.
        best: what `after_epoch` keeps of the training, so that it is in the snapshots.
        beside: variables that belong to the state of this training and not to the model.
        snapshots: where the state is kept from time to time, and taken up again.
        jit_compile: whether XLA compiles the step.

    Raises:
        TrainingError: the loss is no longer a finite number.
    """
    optimizer = _optimizer(schedule, steps * schedule.epochs)
    variables = model.trainable_variables
    optimizer.build(variables)

    def gradients(inputs: Any, targets: Any) -> tuple[Any, list[Any]]:
        with tf.GradientTape() as tape:
            value = loss(model(inputs, training=True), targets)
        return value, tape.gradient(value, variables)

    def apply(found: list[Any]) -> None:
        optimizer.apply_gradients(zip(found, variables, strict=True))

    step = _step(gradients, apply, variables, examples_at_once(model, schedule.batch), jit_compile)

    generator = np.random.default_rng(seed)
    state = [*model.variables, *optimizer.variables, *beside]
    first = snapshots.restore(state, generator, best) if snapshots is not None else 0
    for epoch in range(first + 1, schedule.epochs + 1):
        value = np.float32(0)
        for inputs, targets in batches(generator):
            if before_step is not None:
                before_step()
            value = step(inputs, targets)
        if not np.isfinite(value):
            raise TrainingError(
                f"the loss is no finite number any more after epoch {epoch} of {schedule.epochs}: "
                f"lower the learning rate (it was {schedule.rate:g}), and look for broken pictures"
            )
        if after_epoch is not None:
            after_epoch(epoch)
        if snapshots is not None:
            snapshots.keep(epoch, state, generator, best)


def examples_at_once(model: Any, batch: int) -> int:
    """How many of `batch` examples a step takes at once: a divisor of it, by the model's activations."""
    most = max(1, _STEP_NUMBERS // max(1, _activations(model)))
    return next(size for size in range(min(batch, most), 0, -1) if batch % size == 0)


def _activations(model: Any) -> int:
    """Numbers that a gradient keeps of one example: outputs of layers, and products of pairs of tokens."""
    numbers = 0
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            numbers += _activations(layer)
            continue
        numbers += sum(math.prod(output.shape[1:]) for output in tf.nest.flatten(layer.get_output_at(0)))
        if isinstance(layer, Attention):
            query, key, _ = layer.get_input_at(0)
            numbers += 3 * layer.heads * math.prod(query.shape[1:-1]) * key.shape[1]
    return numbers


def _step(
    gradients: Callable[[Any, Any], tuple[Any, list[Any]]],
    apply: Callable[[list[Any]], None],
    variables: list[Any],
    size: int,
    jit_compile: bool,
) -> Callable[[Any, Any], Any]:
    """One step of training on (inputs, targets), which gives the loss; `size` examples are taken at once."""

    @tf.function(jit_compile=jit_compile)  # type: ignore[untyped-decorator]
    def whole(inputs: Any, targets: Any) -> Any:
        value, found = gradients(inputs, targets)
        apply(found)
        return value

    sums: list[Any] = []

    @tf.function(jit_compile=jit_compile)  # type: ignore[untyped-decorator]
    def add(inputs: Any, targets: Any, share: Any) -> Any:
        value, found = gradients(inputs, targets)
        for total, gradient in zip(sums, found, strict=True):
            total.assign_add(share * gradient)
        return value * share

    @tf.function(jit_compile=jit_compile)  # type: ignore[untyped-decorator]
    def finish() -> None:
        apply([tf.identity(total) for total in sums])
        for total in sums:
            total.assign(tf.zeros_like(total))

    def in_parts(inputs: Any, targets: Any) -> Any:
        count = len(tf.nest.flatten(targets)[0])
        if count <= size:
            return whole(inputs, targets)
        if not sums:
            sums.extend(tf.Variable(tf.zeros_like(variable), trainable=False) for variable in variables)
        value = 0.0
        for start in range(0, count, size):
            stop = min(count, start + size)
            part = tf.nest.map_structure(lambda a, rows=slice(start, stop): a[rows], (inputs, targets))
            value += add(*part, np.float32((stop - start) / count))
        finish()
        return value

    return in_parts


def _optimizer(schedule: Schedule, steps: int) -> Any:
    warm_up = max(1, round(schedule.warm_up * steps))
    rate = keras.optimizers.schedules.CosineDecay(
        0.0,
        max(1, steps - warm_up),
        alpha=0.0 if schedule.cool_down else 1.0,
        warmup_target=schedule.rate,
        warmup_steps=warm_up,
    )
    optimizer = keras.optimizers.AdamW(rate, weight_decay=schedule.weight_decay, jit_compile=False)
    optimizer.exclude_from_weight_decay(var_names=_WITHOUT_DECAY)
    return optimizer


class Forward:
    """A model's answers over many pictures, compiled once for batches of one size."""

    def __init__(self, model: Any) -> None:
        self._answer = tf.function(lambda images: model(images, training=False), jit_compile=True)

    def __call__(self, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Answers for uint8 [n, h, w, c]: `feature` f32 [n, width], `logits` f32 [n, classes]."""
        parts: list[dict[str, NDArray[np.float32]]] = []
        size = max(1, min(_FORWARD_BATCH, _FORWARD_PIXELS // int(np.prod(images.shape[1:]))))
        for start in range(0, len(images), size):
            batch = images[start : start + size]
            # One shape, one compilation: the last batch is filled up and cut again.
            filled = np.zeros((size, *images.shape[1:]), np.uint8)
            filled[: len(batch)] = batch
            answer = self._answer(filled)
            parts.append({name: value.numpy()[: len(batch)] for name, value in answer.items()})
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def accuracy(self, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> float:
        """Share of pictures whose highest logit is their label's."""
        return float(np.mean(self(images)["logits"].argmax(axis=1) == labels))
