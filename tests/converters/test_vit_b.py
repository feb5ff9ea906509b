"""The ViT-B benchmark without its minutes: the ONNX graph is the same model, the ratios are ratios."""

import numpy as np
import pytest
from edvit_converters.check import keras_answers
from edvit_converters.onnx import to_onnx
from edvit_converters.vit_b import SHAPED, SUBMODEL, WHOLE, figures

from edvit_tf.build.shapes import shapes
from edvit_tf.build.widths import narrowed, uniform
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


def test_the_other_sub_model_is_a_shape_that_an_export_tries() -> None:
    tried = [narrowed(WHOLE, widths).with_classes(3) for widths in shapes(WHOLE, uniform(WHOLE, 2))]
    assert tried[0] == SUBMODEL
    assert SHAPED in tried
    assert SHAPED.f32_bytes <= SUBMODEL.f32_bytes


def test_ratios_are_against_f32_the_best_format_and_the_best_of_any_runtime() -> None:
    fastest = {
        "whole f32": 400.0,
        "whole int4-dynamic": 300.0,
        "onnxruntime f32": 440.0,
        "onnxruntime int8": 250.0,
        "submodel f32": 14.0,
        "submodel int4-dynamic": 10.1,
        "submodel int8-full": 10.0,
        "shaped f32": 9.0,
        "shaped int4-dynamic": 8.5,
        "shaped int8-full": 8.0,
    }
    sizes = {"whole f32": 1000, "whole int4-dynamic": 140}
    sizes |= {"submodel f32": 40, "submodel int4-dynamic": 5, "submodel int8-full": 10}
    sizes |= {"shaped f32": 40, "shaped int4-dynamic": 4, "shaped int8-full": 8}
    found = figures(fastest, sizes)
    assert found["submodel_best_format"] == "int4-dynamic"  # as fast but for noise, and half the bytes
    assert found["latency_ratio"] == pytest.approx(400 / 10.1)
    assert found["latency_ratio_best"] == pytest.approx(300 / 10.1)
    assert found["latency_ratio_any"] == pytest.approx(250 / 10.1)
    assert found["size_ratio"] == 200
    assert found["shaped_best_format"] == "int8-full"
    assert found["shaped_latency_ratio"] == 50
    assert found["shaped_size_ratio"] == 125
