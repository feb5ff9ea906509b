"""The Keras model against plain NumPy, against its config, and against the tools it must work with."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_model_optimization as tfmot

from edvit_tf.errors import ModelError
from edvit_tf.vit.checkpoint import Checkpoint
from edvit_tf.vit.config import BlockConfig, ImageSize, ViTConfig, weight_shapes
from edvit_tf.vit.keras import keras, tf
from edvit_tf.vit.model import (
    build,
    fold_normalisation,
    from_checkpoint,
    load_keras,
    read_config,
    read_weights,
    write_weights,
)
from tests.vit.reference import forward, random_images, random_weights

CONFIG = ViTConfig(
    ImageSize(12, 8, 3),
    patch=4,
    width=16,
    head_size=8,
    blocks=(BlockConfig(2, 24), BlockConfig(3, 40), BlockConfig(1, 16)),
    classes=5,
    mean=(100.0, 120.0, 140.0),
    deviation=(50.0, 60.0, 70.0),
)


STEM = replace(CONFIG, stem=(6, 5))


def filled(config: ViTConfig, batch_size: int | None = None) -> Any:
    model = build(config, batch_size=batch_size)
    write_weights(model, random_weights(config, 1))
    return model


def outputs(model: Any, images: Any) -> tuple[Any, Any]:
    result = model(images, training=False)
    return result["feature"].numpy(), result["logits"].numpy()


def assert_same_function(ours: tuple[Any, Any], theirs: tuple[Any, Any]) -> None:
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("whole", [CONFIG, STEM], ids=["patches", "stem"])
@pytest.mark.parametrize("depth", [1, 3])
def test_the_model_computes_the_formulas(whole: ViTConfig, depth: int) -> None:
    config = replace(whole, blocks=CONFIG.blocks[:depth])
    images = random_images(config, 3, 0)
    assert_same_function(outputs(filled(config), images), forward(config, random_weights(config, 1), images))


@pytest.mark.parametrize("config", [CONFIG, STEM], ids=["patches", "stem"])
def test_the_model_has_exactly_the_weights_its_config_lists(config: ViTConfig) -> None:
    model = build(config)
    weights = read_weights(model)
    assert {name: weight.shape for name, weight in weights.items()} == weight_shapes(config)
    assert model.count_params() == config.parameters
    assert all(weight.dtype == np.float32 for weight in weights.values())
    assert read_config(model) == config


def test_fresh_weights_follow_the_seed() -> None:
    def fresh(seed: int) -> Any:
        keras.utils.set_random_seed(seed)
        return read_weights(build(CONFIG))["block_1_key/kernel"]

    np.testing.assert_array_equal(fresh(3), fresh(3))
    assert not np.array_equal(fresh(3), fresh(4))


def test_weights_that_do_not_fit_change_nothing() -> None:
    model = filled(CONFIG)
    before = read_weights(model)
    for changed, sentence in (
        ({"stranger/kernel": np.zeros(1, np.float32)}, "stranger/kernel"),
        ({"patch_embedding/bias": np.ones(16, np.float32), "head/bias": np.ones(4, np.float32)}, r"\(4,\)"),
    ):
        with pytest.raises(ModelError, match=sentence):
            write_weights(model, before | changed)
        for name, weight in read_weights(model).items():
            np.testing.assert_array_equal(weight, before[name])


def test_folding_the_normalisation_is_exact() -> None:
    config, weights = fold_normalisation(CONFIG, random_weights(CONFIG, 1))
    assert (config.mean, config.deviation) == ((0.0,) * 3, (1.0,) * 3)
    model = build(config)
    write_weights(model, weights)
    images = random_images(config, 3, 0)
    assert_same_function(outputs(model, images), outputs(filled(CONFIG), images))


def test_of_a_stem_the_deviation_is_folded() -> None:
    config, weights = fold_normalisation(STEM, random_weights(STEM, 1))
    assert (config.mean, config.deviation) == (STEM.mean, (1.0,) * 3)
    model = build(config)
    write_weights(model, weights)
    images = random_images(config, 3, 0)
    assert_same_function(outputs(model, images), outputs(filled(STEM), images))


def test_keras_file_round_trip(tmp_path: Path) -> None:
    model = filled(CONFIG)
    model.save(tmp_path / "model.keras")
    checkpoint = load_keras(tmp_path / "model.keras", ("a", "b", "c", "d", "e"))
    assert checkpoint.config == CONFIG
    assert checkpoint.labels == ("a", "b", "c", "d", "e")
    for name, weight in read_weights(model).items():
        np.testing.assert_array_equal(checkpoint.weights[name], weight)
    loaded = keras.models.load_model(tmp_path / "model.keras")
    images = random_images(CONFIG, 2, 0)
    assert_same_function(outputs(loaded, images), outputs(model, images))


def test_a_checkpoint_becomes_a_model() -> None:
    weights = random_weights(CONFIG, 1)
    model = from_checkpoint(Checkpoint(CONFIG, weights, tuple("abcde")), batch_size=2)
    assert model.input_shape == (2, 12, 8, 3)
    np.testing.assert_array_equal(read_weights(model)["head/kernel"], weights["head/kernel"])


def other_model(path: Path) -> None:
    image = keras.layers.Input((4,))
    keras.Model(image, keras.layers.Dense(2)(image)).save(path)


def cut_off(path: Path) -> None:
    build(CONFIG).save(path)
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("write", "sentence"),
    [
        (Path.exists, "There is no model file"),
        (lambda path: path.write_bytes(b"nothing"), "not a whole .keras file"),
        (cut_off, "not a whole .keras file"),
        (other_model, "not built by edvit-tf"),
    ],
)
def test_a_keras_file_that_is_not_ours_is_refused(
    tmp_path: Path, write: Callable[[Path], Any], sentence: str
) -> None:
    write(tmp_path / "model.keras")
    with pytest.raises(ModelError, match=sentence):
        load_keras(tmp_path / "model.keras")


def test_training_with_xla_learns() -> None:
    """Bright above or bright below: a healthy model tells them apart in a few steps."""
    config = ViTConfig(
        ImageSize(8, 8, 1), 4, width=16, head_size=8, blocks=(BlockConfig(2, 32),) * 2, classes=2
    )
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 512)
    images = random.integers(0, 156, (512, 8, 8, 1))
    images[labels == 0, :4] += 50
    images[labels == 1, 4:] += 50
    images, targets = images.astype(np.uint8), {"logits": labels}
    keras.utils.set_random_seed(0)
    model = build(config)
    loss = {"logits": keras.losses.SparseCategoricalCrossentropy(from_logits=True)}
    model.compile(keras.optimizers.Adam(3e-3), loss=loss, metrics={"logits": "accuracy"}, jit_compile=True)
    model.fit(images, targets, batch_size=64, epochs=8, verbose=0)
    assert model.evaluate(images, targets, verbose=0, return_dict=True)["head_accuracy"] > 0.9


def test_pruning_wraps_a_clone_and_strips_to_the_same_model() -> None:
    model = filled(CONFIG)
    schedule = tfmot.sparsity.keras.ConstantSparsity(0.5, begin_step=0, frequency=1)

    def wrap(layer: Any) -> Any:
        if isinstance(layer, keras.layers.Dense):
            return tfmot.sparsity.keras.prune_low_magnitude(layer, schedule)
        return layer.__class__.from_config(layer.get_config())

    clone = keras.models.clone_model(model, clone_function=wrap)
    stripped = tfmot.sparsity.keras.strip_pruning(clone)
    write_weights(stripped, read_weights(model))
    images = random_images(CONFIG, 2, 0)
    assert_same_function(outputs(stripped, images), outputs(model, images))

    loss = {"logits": keras.losses.SparseCategoricalCrossentropy(from_logits=True)}
    clone.compile(keras.optimizers.Adam(1e-3), loss=loss, jit_compile=False)
    images, labels = random_images(CONFIG, 16, 0), np.arange(16) % 5
    clone.fit(
        images,
        {"logits": labels},
        batch_size=8,
        epochs=2,
        verbose=0,
        callbacks=[tfmot.sparsity.keras.UpdatePruningStep()],
    )
    pruned = read_weights(tfmot.sparsity.keras.strip_pruning(clone))
    assert pruned.keys() == weight_shapes(CONFIG).keys()
    assert np.mean(pruned["block_0_mlp_up/kernel"] == 0) == pytest.approx(0.5, abs=0.01)
    assert np.mean(pruned["patch_embedding/kernel"] == 0) < 0.01


def test_conversion_finds_only_static_builtin_operators() -> None:
    model = filled(CONFIG, batch_size=1)
    function = tf.function(model).get_concrete_function(tf.TensorSpec((1, 12, 8, 3), tf.uint8, name="image"))
    converted = tf.lite.TFLiteConverter.from_concrete_functions([function], model).convert()
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=converted)
    interpreter.allocate_tensors()
    operators = [operator["op_name"] for operator in interpreter._get_ops_details()]
    assert operators.count("GELU") == len(CONFIG.blocks)
    assert operators.count("DELEGATE") == 1
    assert "SHAPE" not in operators
    assert all((tensor["shape_signature"] > 0).all() for tensor in interpreter.get_tensor_details())
    images = random_images(CONFIG, 1, 0)
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], images)
    interpreter.invoke()
    found = sorted(
        (interpreter.get_tensor(o["index"]) for o in interpreter.get_output_details()), key=np.size
    )
    assert_same_function((found[1], found[0]), outputs(model, images))
