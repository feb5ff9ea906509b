"""The one door to TensorFlow: `from edvit_tf.vit.keras import keras, tf`.

TF-MOT prunes models of Keras 2 only, so Keras is `tf_keras` here, and `TF_USE_LEGACY_KERAS` says so to every
package that is imported later. That must be settled before TensorFlow is first imported, and so in one place.
"""

import os

from edvit_tf.errors import MissingPackage

os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # what is worth reading goes through our own progress

try:
    import tensorflow as tf
    import tf_keras as keras
except ModuleNotFoundError as missing:
    raise MissingPackage(
        f"This needs {missing.name}, which the base installation leaves out: pip install 'edvit-tf[export]'"
    ) from missing

__all__ = ["keras", "tf"]
