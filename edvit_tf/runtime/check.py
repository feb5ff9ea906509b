"""Hold a flatbuffer against its test vector, in a child process that may crash.

Loading a flatbuffer proves nothing: an interpreter that is too old for a format can load it and answer
garbage, or end the process. `python -m edvit_tf.runtime.check FLATBUFFER [VECTOR]` prints the verdict as one
JSON object. A third argument is the library of an accelerator's delegate.
"""

import json
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edvit_tf.bundle.vector import load_vector
from edvit_tf.errors import EdvitError
from edvit_tf.runtime.interpreter import Flatbuffer, runtime_name
from edvit_tf.runtime.measure import measure

LEAST_COSINE = 0.98  # right interpreters reach 0.997 and more, wrong ones 0.27 and less
MEASURED_RUNS = 7
TIMEOUT_SECONDS = 120.0  # a large model on a slow board


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a flatbuffer answers here as it did where it was made.

    `reason` is one sentence when it does not, and empty when it does. The cosines are None when there
    was no answer, or none that is finite. `microseconds` is the median of one picture.
    """

    ok: bool
    reason: str
    cosine_feature: float | None = None
    cosine_logits: float | None = None
    microseconds: int = 0


def verify(flatbuffer: Path, vector: Path, *, delegate: str = "") -> Verdict:
    """Run a flatbuffer on its test vector in this process, which a bad flatbuffer can end.

    Args:
        flatbuffer: a sub-model.
        vector: the safetensors file with `image`, `feature` and `logits`.
        delegate: the library of an accelerator's delegate.
    """
    try:
        expected = load_vector(vector)
        loaded = Flatbuffer(flatbuffer, delegate=delegate)
        output = loaded.run(expected.image)
    except EdvitError as error:
        return Verdict(ok=False, reason=error.message)
    if not (np.isfinite(output.feature).all() and np.isfinite(output.logits).all()):
        return Verdict(
            ok=False, reason=f"{runtime_name()} answers {flatbuffer.name} with numbers that are not finite."
        )
    if output.feature.shape != expected.feature.shape or output.logits.shape != expected.logits.shape:
        return Verdict(
            ok=False, reason=f"{flatbuffer.name} does not belong to the test vector {vector.name}."
        )
    feature = cosine(output.feature, expected.feature)
    logits = cosine(output.logits, expected.logits)
    if min(feature, logits) < LEAST_COSINE:
        reason = (
            f"{runtime_name()} answers {flatbuffer.name} wrongly (cosine {feature:.3f} for the feature, "
            f"{logits:.3f} for the logits, at least {LEAST_COSINE} expected): use another format or a newer "
            f"interpreter."
        )
        return Verdict(ok=False, reason=reason, cosine_feature=feature, cosine_logits=logits)
    median = measure(loaded, expected.image, runs=MEASURED_RUNS, warm_up=1).p50_ms
    return Verdict(True, "", feature, logits, microseconds=max(1, round(1000 * median)))


def probe(flatbuffer: Path) -> Verdict:
    """Run a flatbuffer without a test vector, on a grey picture: it must load, and give finite numbers."""
    try:
        loaded = Flatbuffer(flatbuffer)
        output = loaded.run(np.full(loaded.inputs[0].shape[1:], 127, np.uint8))
    except EdvitError as error:
        return Verdict(ok=False, reason=error.message)
    if not (np.isfinite(output.feature).all() and np.isfinite(output.logits).all()):
        return Verdict(ok=False, reason=f"{flatbuffer.name} answers with numbers that are not finite.")
    return Verdict(ok=True, reason="")


def verify_in_child(
    flatbuffer: Path, vector: Path, *, delegate: str = "", timeout: float = TIMEOUT_SECONDS
) -> Verdict:
    """Do what `verify` does in a child process: a crash, or no answer in time (seconds), is a verdict."""
    return _in_child(flatbuffer, [str(flatbuffer), str(vector), *([delegate] if delegate else [])], timeout)


def probe_in_child(flatbuffer: Path, *, timeout: float = TIMEOUT_SECONDS) -> Verdict:
    """Do what `probe` does in a child process, as `verify_in_child`."""
    return _in_child(flatbuffer, [str(flatbuffer)], timeout)


def _in_child(flatbuffer: Path, arguments: list[str], timeout: float) -> Verdict:
    command = [sys.executable, "-m", "edvit_tf.runtime.check", *arguments]
    try:
        child = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        return Verdict(
            ok=False, reason=f"{flatbuffer.name} gave no answer to its test vector in {timeout:g} s."
        )
    if child.returncode < 0:
        name = signal.Signals(-child.returncode).name
        return Verdict(ok=False, reason=f"{flatbuffer.name} crashed the interpreter ({name}).")
    if child.returncode != 0:
        last = (child.stderr.strip().splitlines() or ["it said nothing"])[-1]
        return Verdict(ok=False, reason=f"{flatbuffer.name} could not be checked: {last}")
    return Verdict(**json.loads(child.stdout))


def cosine(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Return the cosine between two arrays taken as vectors; 1 when both are zero, 0 when one is."""
    a, b = one.astype(np.float64).ravel(), other.astype(np.float64).ravel()
    length = float(np.linalg.norm(a) * np.linalg.norm(b))
    if length == 0.0:
        return float(not a.any() and not b.any())
    return float(a @ b) / length


if __name__ == "__main__":
    given = [Path(argument) for argument in sys.argv[1:3]]
    found = verify(*given, delegate="".join(sys.argv[3:])) if len(given) > 1 else probe(*given)
    print(json.dumps(asdict(found)))  # noqa: T201
