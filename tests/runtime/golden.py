"""The golden bundle: flatbuffers that lie in the repository, so that no TensorFlow is needed."""

from pathlib import Path

GOLDEN = Path(__file__).parents[1] / "vectors" / "bundle"
SUBMODEL = GOLDEN / "submodels" / "submodel-0.f32.tflite"
VECTOR = GOLDEN / "vectors" / "submodel-0.f32.safetensors"
