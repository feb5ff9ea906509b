"""An accelerator beside the processor: found, tried in a child process that may crash, and handed on.

`python -m edvit_tf.runtime.delegate LIBRARY` loads a delegate library and says nothing when that works.
"""

import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edvit_tf.errors import UsageError

_LIBRARIES: Mapping[str, str] = {"edgetpu": "libedgetpu.so.1"}
_TARGETS: Mapping[str, str] = {"edgetpu": "coral"}
_TIMEOUT_SECONDS = 60.0  # a Coral on USB takes seconds to wake up

DELEGATES = tuple(_LIBRARIES)


@dataclass(frozen=True, slots=True)
class Accelerator:
    """What computes beside the processor.

    Attributes:
        name: `edgetpu`, or empty when there is none.
        reason: why there is none; empty when there is one.
        library: the delegate's library, empty when there is none.
        target: what the manifest calls variants that are made for it.
    """

    name: str = ""
    reason: str = "none was asked for (edvit-tf device run --delegate edgetpu)"
    library: str = ""
    target: str = ""


def find_accelerator(name: str) -> Accelerator:
    """Load an accelerator's delegate once, to see whether it is there.

    Args:
        name: one of `DELEGATES`, or empty for none.

    Raises:
        UsageError: there is no such delegate.
    """
    if not name:
        return Accelerator()
    if name not in _LIBRARIES:
        raise UsageError(f"There is no delegate {name!r}: choose one of {', '.join(DELEGATES)}.")
    library = _LIBRARIES[name]
    reason = _why_not(library)
    if reason:
        return Accelerator(reason=f"{library} cannot be used: {reason}")
    return Accelerator(name, "", library, _TARGETS[name])


def load(library: str) -> Any:
    """The delegate of a library.

    Raises:
        ValueError, OSError: it is not there, or finds no device.
    """
    try:
        from ai_edge_litert.interpreter import load_delegate
    except ImportError:
        from tflite_runtime.interpreter import load_delegate
    return load_delegate(library)


def _why_not(library: str) -> str:
    command = [sys.executable, "-m", "edvit_tf.runtime.delegate", library]
    try:
        child = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"it did not answer in {_TIMEOUT_SECONDS:g} s; plug the device in again"
    if child.returncode < 0:
        return f"it crashed ({signal.Signals(-child.returncode).name})"
    if child.returncode:
        return (child.stderr.strip().splitlines() or ["it gave no reason"])[-1]
    return ""


if __name__ == "__main__":
    try:
        load(sys.argv[1])
    except (ValueError, OSError, RuntimeError) as error:
        said = " ".join(str(error).split())
        sys.exit(said or "it found no device: is one plugged in, and may this user use it?")
