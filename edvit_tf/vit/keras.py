"""The one door to TensorFlow: `from edvit_tf.vit.keras import keras, tf`.

TF-MOT prunes models of Keras 2 only, so Keras is `tf_keras` here, and `TF_USE_LEGACY_KERAS` says so to every
package that is imported later. That must be settled before TensorFlow is first imported, and so in one place.
"""

import os
import re

from edvit_tf.errors import MissingPackage
from edvit_tf.quiet import without_lines

os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # what is worth reading goes through our own progress

# What TensorFlow says of itself before its log level counts, and that it found no GPU to use.
_GREETINGS = re.compile(
    rb"^(WARNING: All log messages before absl|[IWE]0000 .*(oneDNN|cud|CUDA)).*\r?\n", re.MULTILINE
)

try:
    with without_lines(_GREETINGS):
        import tensorflow as tf
        import tf_keras as keras

        tf.config.list_physical_devices()  # looks for GPUs now, while its notes are kept back
except ModuleNotFoundError as missing:
    raise MissingPackage(
        f"This needs {missing.name}, which the base installation leaves out: pip install 'edvit-tf[export]'"
    ) from missing

__all__ = ["keras", "tf"]
