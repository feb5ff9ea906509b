"""Make `edvit_tf/zoo/idle-fusion.tflite` again: `python benchmarks/make_idle_fusion.py` (needs `export`).

The fusion of `edvit-tf fleet benchmark`: ten features of 16 numbers to ten classes. Its weights are random
numbers of a fixed seed: nobody looks at what it says.
"""

from pathlib import Path

from edvit_converters.tflite import convert_fusion

from edvit_tf.build.fusion import build_fusion
from edvit_tf.cli.idle_fleet import CLASSES, DEVICES, FEATURE
from edvit_tf.vit.keras import keras

if __name__ == "__main__":
    keras.utils.set_random_seed(7)
    model = build_fusion([FEATURE] * DEVICES, len(CLASSES))
    target = Path(__file__).parents[1] / "edvit_tf" / "zoo" / "idle-fusion.tflite"
    target.write_bytes(convert_fusion(model))
