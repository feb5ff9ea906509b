"""Data sets: a registered name or a folder of class folders becomes bytes, split once by the seed.

`registry.py` says what a name stands for, a file each where a registered data set is found (`mnist.py`,
`cifar10.py` …) and `folders.py` how class folders are listed; `items.py` reads what was found, and
`loading.py` puts it together.
"""

from edvit_tf.build.data.dataset import Dataset, Skipped, Split, mean_and_deviation
from edvit_tf.build.data.loading import class_names, load, load_test
from edvit_tf.build.data.registry import REGISTRY
from edvit_tf.build.data.splits import HELD_OUT, hold_out, long_tail

__all__ = [
    "HELD_OUT",
    "REGISTRY",
    "Dataset",
    "Skipped",
    "Split",
    "class_names",
    "hold_out",
    "load",
    "load_test",
    "long_tail",
    "mean_and_deviation",
]
