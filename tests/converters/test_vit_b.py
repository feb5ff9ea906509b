"""The ViT-B benchmark without its minutes: the ONNX graph is the same model, the ratios are ratios."""

import numpy as np
import pytest
from edvit_converters.check import keras_answers
from edvit_converters.onnx import to_onnx
from edvit_converters.vit_b import SUBMODEL, WHOLE, figures

from edvit_tf.vit.config import ViTConfig
from tests.converters.models import PRUNED, UNIFORM, random_images, random_vit


@pytest.mark.parametrize("config", [UNIFORM, PRUNED])
def test_the_onnx_graph_computes_what_keras_computes(config: ViTConfig) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    model = random_vit(config)
    images = random_images(config, 1)
    normalised = (images - np.asarray(config.mean)) / np.asarray(config.deviation)
    session = onnxruntime.InferenceSession(to_onnx(model.config, model.weights).SerializeToString())
    feature, logits = session.run(None, {"image": normalised.transpose(0, 3, 1, 2).astype(np.float32)})
    expected = keras_answers(model, images)
    np.testing.assert_allclose(feature[0], expected.features, atol=1e-4)
    np.testing.assert_allclose(logits[0], expected.logits, atol=1e-4)


def test_the_sub_model_is_the_papers() -> None:
    assert SUBMODEL.macs == pytest.approx(565e6, rel=0.02)
    assert WHOLE.blocks[0].heads == 12


def test_ratios_are_against_f32_the_best_format_and_the_best_of_any_runtime() -> None:
    fastest = {
        "whole f32": 400.0,
        "whole int4-dynamic": 300.0,
        "onnxruntime f32": 440.0,
        "onnxruntime int8": 250.0,
        "submodel f32": 14.0,
        "submodel int4-dynamic": 10.1,
        "submodel int8-full": 10.0,
    }
    submodel = {"f32": bytes(40), "int4-dynamic": bytes(5), "int8-full": bytes(10)}
    found = figures(fastest, {"f32": 1000, "int4-dynamic": 140}, submodel)
    assert found["submodel_best_format"] == "int4-dynamic"  # as fast but for noise, and half the bytes
    assert found["latency_ratio"] == pytest.approx(400 / 10.1)
    assert found["latency_ratio_best"] == pytest.approx(300 / 10.1)
    assert found["latency_ratio_any"] == pytest.approx(250 / 10.1)
    assert found["size_ratio"] == 200
