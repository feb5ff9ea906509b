"""The interpreter as a device uses it: a thread for each sub-model, so that the port stays awake."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np

from edvit_tf.runtime.check import Verdict, verify_in_child
from edvit_tf.runtime.interpreter import Flatbuffer, Output, runtime_name


class Model(Protocol):
    """A sub-model that is loaded."""

    def run(self, image: np.ndarray) -> Output:
        """Take a picture uint8 [h, w, c]; return feature f32 [d] and logits f32 [c]."""
        ...


@dataclass(frozen=True, slots=True)
class Runtime:
    """What a device needs of an interpreter; tests pass their own.

    `name` is the interpreter and its version ("ai-edge-litert/2.3.0"). `verify` runs a flatbuffer on its test
    vector in a child process, which may crash.
    """

    name: str
    load: Callable[[Path], Model]
    verify: Callable[[Path, Path], Verdict]


def installed_runtime(delegate: str = "") -> Runtime:
    """Return the interpreter that is installed here, with an accelerator's delegate if a library is named."""
    return Runtime(
        runtime_name(), partial(Flatbuffer, delegate=delegate), partial(verify_in_child, delegate=delegate)
    )


class Engine:
    """One loaded sub-model and its thread: an interpreter runs one picture at a time."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="engine")

    async def run(self, image: np.ndarray) -> tuple[Output, int]:
        """Run one picture uint8 [h, w, c]; return the outputs and the microseconds in the interpreter.

        A caller that is cancelled while its picture waits for the thread takes it out of the queue.
        """
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._timed, image)

    def _timed(self, image: np.ndarray) -> tuple[Output, int]:
        start = time.perf_counter_ns()
        output = self._model.run(image)
        return output, (time.perf_counter_ns() - start) // 1000

    def close(self) -> None:
        """End the thread after what it is doing now."""
        self._thread.shutdown(wait=False, cancel_futures=True)
