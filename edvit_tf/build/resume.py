"""A training that was interrupted goes on after its last kept epoch, to the same weights bit for bit."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from edvit_tf.vit.checkpoint import write_whole

_SHARE_OF_TIME = 0.05
_KEY = "edvit"

Arrays = Mapping[str, NDArray[Any]]


class Best:
    """The weights that were best on validation so far, and how good they were."""

    def __init__(self, weights: Arrays) -> None:
        self.weights = weights
        self.accuracy = -1.0

    def offer(self, accuracy: float, weights: Callable[[], Arrays]) -> None:
        """Take these weights if they are better."""
        if accuracy > self.accuracy:
            self.accuracy, self.weights = accuracy, weights()


class Snapshots:
    """The state of a training after an epoch, in one file that is replaced whole.

    It is kept as often as costs a twentieth of the time. Nothing of it changes what training gives. A state
    of another training, by what it is `made_from`, is not taken up.
    """

    def __init__(self, file: Path, made_from: str = "") -> None:
        self._file = file
        self._made_from = made_from
        self._next = 0.0

    def keep(
        self, epochs: int, variables: Sequence[Any], generator: np.random.Generator, best: Best | None
    ) -> None:
        """Keep the state after so many epochs, if it is time to.

        Args:
            epochs: that are over.
            variables: TensorFlow variables of model and optimizer, always in the same order.
            generator: all later randomness comes from it.
            best: so far, where the training has one.
        """
        started = time.monotonic()
        if started < self._next:
            return
        arrays = {f"variable/{index}": np.asarray(v.numpy()) for index, v in enumerate(variables)}
        if best is not None:
            arrays |= {f"best/{name}": np.asarray(weight) for name, weight in best.weights.items()}
        header = {
            "made_from": self._made_from,
            "epochs": epochs,
            "generator": generator.bit_generator.state,
            "accuracy": best.accuracy if best is not None else None,
        }
        write_whole(self._file, save(arrays, metadata={_KEY: json.dumps(header)}))
        ended = time.monotonic()
        self._next = ended + (ended - started) / _SHARE_OF_TIME

    def restore(self, variables: Sequence[Any], generator: np.random.Generator, best: Best | None) -> int:
        """Put back the state that was kept last, and say after how many epochs that was; 0 without one.

        Args:
            variables: as `keep` was given them.
            generator: is put back too.
            best: is put back too.
        """
        try:
            with safe_open(self._file, framework="numpy") as file:
                header = json.loads(file.metadata()[_KEY])
                if header["made_from"] != self._made_from:
                    return 0
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError):
            return 0
        for index, variable in enumerate(variables):
            variable.assign(arrays[f"variable/{index}"])
        generator.bit_generator.state = header["generator"]
        if best is not None:
            best.accuracy = header["accuracy"]
            best.weights = {
                name.removeprefix("best/"): array
                for name, array in arrays.items()
                if name.startswith("best/")
            }
        return int(header["epochs"])
