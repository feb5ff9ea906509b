"""TFLite's own `benchmark_model` on a phone, and what it prints as numbers."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from edvit_tf.errors import PhoneError
from edvit_tf.phone.adb import Adb, Phone, Said
from edvit_tf.phone.files import FOLDER, Flatbuffer, push_program

TOOL = "benchmark_model"
_SECONDS = 300.0
_OPTIONS = ("--warmup_runs=5", "--use_xnnpack=true", "--report_peak_memory_footprint=true")
_NUMBER = r"([0-9.]+(?:e[+-]?[0-9]+)?)"
_TIMINGS = re.compile(
    rf"Inference timings in us: Init: {_NUMBER}, First inference: {_NUMBER}, Warmup \(avg\): {_NUMBER}, "
    rf"Inference \(avg\): {_NUMBER}"
)
_VARIED = rf".*?\bmin={_NUMBER} max={_NUMBER} avg={_NUMBER} std={_NUMBER}"
_RUNS = re.compile(rf"count=(\d+) (?:curr={_NUMBER}(?:\(all same\))?$|{_VARIED})", re.MULTILINE)
_PEAK = re.compile(rf"Overall peak memory footprint \(MB\) via periodic monitoring: {_NUMBER}")
_DELEGATED = re.compile(
    r"XNNPACK delegate(?:, and| is explicitly applied,) "
    r"the model graph will (?:be )?(completely|partially|not)\b"
)
_COMPLAINT = re.compile(r"^(?:ERROR|FATAL): (.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Measured:
    """What one flatbuffer costs on a phone.

    Attributes:
        runs: pictures that were measured.
        mean_ms, least_ms, spread_ms: of one picture; the spread is a standard deviation.
        init_ms: until the interpreter was ready.
        peak_mb: of the process, None where the tool does not say.
        xnnpack: "completely", "partially" or "not" run by XNNPACK, empty where the tool does not say.
    """

    runs: int
    mean_ms: float
    least_ms: float
    spread_ms: float
    init_ms: float
    peak_mb: float | None = None
    xnnpack: str = ""


def parse(text: str) -> Measured | None:
    """Read what `benchmark_model` prints; None when it holds no measurement."""
    timings = _TIMINGS.search(text)
    runs = list(_RUNS.finditer(text))
    if timings is None or not runs:
        return None
    count, same, least, _, _, spread = runs[-1].groups()  # the ones before warm up
    peak = _PEAK.search(text)
    delegated = _DELEGATED.search(text)
    return Measured(
        runs=int(count),
        mean_ms=float(timings.group(4)) / 1000,
        least_ms=float(least or same) / 1000,
        spread_ms=float(spread or 0) / 1000,
        init_ms=float(timings.group(1)) / 1000,
        peak_mb=float(peak.group(1)) if peak else None,
        xnnpack=delegated.group(1) if delegated else "",
    )


def find_tool(adb: Adb, phone: Phone, file: Path | None) -> str:
    """Where `benchmark_model` is on the phone: sent there from `file`, or from an earlier time.

    Raises:
        PhoneError: it is not there (`phone.tool`).
    """
    if file is not None:
        return push_program(adb, phone, file)
    names = adb.shell(phone, f"ls {FOLDER}").text.split()
    there = sorted(name for name in names if TOOL in name)
    if not there:
        raise PhoneError(
            f"there is no {TOOL} on the phone: get the one that TensorFlow publishes for this processor "
            f"(android_aarch64_{TOOL}), and name it with --tool.",
            code="phone.tool",
        )
    return f"{FOLDER}/{there[0]}"


def measure(
    adb: Adb, phone: Phone, tool: str, flatbuffer: Flatbuffer, *, threads: int, runs: int
) -> Measured:
    """Run one flatbuffer on the phone, on random pictures.

    Raises:
        PhoneError: it does not run there (`phone.benchmark`).
    """
    words = [tool, f"--graph={flatbuffer.path}", f"--num_threads={threads}", f"--num_runs={runs}", *_OPTIONS]
    done = adb.shell(phone, shlex.join(words), _SECONDS)
    measured = parse(done.text + done.errors)
    if done.status != 0 or measured is None:
        raise PhoneError(
            f"{flatbuffer.file} does not run on the phone (exit status {done.status}): {_why(done)}.",
            code="phone.benchmark",
        )
    return measured


def _why(said: Said) -> str:
    """What the tool complains of first; the later complaints only follow from it."""
    first = _COMPLAINT.search(said.errors + said.text)
    lines = [first.group(1)] if first else (said.text + said.errors).strip().splitlines()
    return lines[-1].strip().rstrip(".") if lines else "it says nothing"
