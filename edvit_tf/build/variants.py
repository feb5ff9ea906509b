"""A sub-model in one format as it is kept: the file, what is said of it, its vector and its features."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edvit_tf.build.data import Dataset, Split
from edvit_tf.build.grouping import relabel
from edvit_tf.build.store import Result
from edvit_tf.build.training import Forward
from edvit_tf.build.work import FLATBUFFER, VECTOR, SubmodelJob
from edvit_tf.bundle.vector import Vector, save_vector
from edvit_tf.runtime.ensemble import accuracy, run_many
from edvit_tf.runtime.interpreter import Flatbuffer

CHECKED_IMAGES = 64
CALIBRATED_IMAGES = 1024  # training pictures that weights and scales of activations are rounded for


def calibration_images(dataset: Dataset, count: int) -> NDArray[np.uint8]:
    """Some training pictures, evenly spaced."""
    training = dataset.train.images
    return np.asarray(training[:: max(1, len(training) // count)][:count])


def write_variant(
    job: SubmodelJob, flatbuffer: bytes, facts: dict[str, object], dataset: Dataset, result: Result
) -> None:
    """The flatbuffer with what the manifest says of it, its vector, and its features of validation."""
    validation = dataset.validation
    answers = run_many(flatbuffer, validation.images, threads=1)
    result.path(FLATBUFFER).write_bytes(flatbuffer)
    save_vector(result.path(VECTOR), _vector(flatbuffer, validation, job.group))
    result.write_array("features", answers.features)
    measured = job.store.get(job.recipes.retrained).array("measured")
    labels = relabel(validation.labels, job.group)[measured]
    result.write_facts(facts | {"accuracy": accuracy(answers.logits[measured], labels)})


def training_features(model: Any, dataset: Dataset) -> NDArray[np.float32]:
    """A Keras model's features of the training pictures, f32 [n, views, width]."""
    forward = Forward(model)
    images = dataset.train.images
    views = [images, images[:, :, ::-1]] if dataset.mirrored else [images]
    return np.stack([forward(view)["feature"] for view in views], axis=1)


def _vector(flatbuffer: bytes, validation: Split, group: tuple[int, ...]) -> Vector:
    image = np.asarray(validation.images[np.flatnonzero(validation.labels == group[0])[0]])
    answer = Flatbuffer(flatbuffer).run(image)
    return Vector(image=image, feature=answer.feature, logits=answer.logits)
