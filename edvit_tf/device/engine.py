"""The interpreter as a device uses it: a thread for each sub-model, so that the port stays awake."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any, Protocol

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


# A picture, and the future of what is said of it; None ends the thread.
_Answer = asyncio.Future[tuple[Output, int]]
_Waiting = SimpleQueue[tuple[np.ndarray, _Answer] | None]


class Engine:
    """One loaded sub-model and its thread: an interpreter runs one picture at a time."""

    def __init__(self, model: Model) -> None:
        # No executor: its futures, with asyncio's around them, cost more than the thread itself.
        self._waiting: _Waiting = SimpleQueue()
        self._thread = Thread(target=_work, args=(model, self._waiting), name="engine", daemon=True)
        self._thread.start()

    def run(self, image: np.ndarray) -> _Answer:
        """Run one picture uint8 [h, w, c]; gives the outputs and the microseconds in the interpreter.

        A picture whose future is cancelled while it waits for the thread is not run.
        """
        answer: _Answer = asyncio.get_running_loop().create_future()
        self._waiting.put((image, answer))
        return answer

    def close(self, *, wait: bool = False) -> None:
        """End the thread after the pictures that it has; with `wait` return when it has ended."""
        self._waiting.put(None)
        if wait:
            self._thread.join()


def _work(model: Model, waiting: _Waiting) -> None:
    while (asked := waiting.get()) is not None:
        _run(model, *asked)
        del asked  # nothing of a picture is kept until the next one comes


def _run(model: Model, image: np.ndarray, answer: _Answer) -> None:
    if answer.cancelled():
        return
    settle: Callable[[Any], None]
    start = time.perf_counter_ns()
    try:
        said: object = model.run(image), (time.perf_counter_ns() - start) // 1000
        settle = answer.set_result
    except Exception as error:  # noqa: BLE001 (whoever waits for the answer gets it)
        said, settle = error, answer.set_exception
    with contextlib.suppress(RuntimeError):  # its event loop has ended
        answer.get_loop().call_soon_threadsafe(_settle, answer, settle, said)


def _settle(answer: _Answer, settle: Callable[[Any], None], said: object) -> None:
    if not answer.done():
        settle(said)
