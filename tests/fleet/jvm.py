"""The device that runs on any Java virtual machine, as `make android` builds it."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.fleet.processes import Program

JAR = Path(__file__).parents[2] / "android_bridge" / "agent-core" / "target" / "agent-core.jar"
# As android_bridge/README.md has it: for machines that do other things, too.
SMALL = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xms16m", "-Xmx256m", "-XX:+ExitOnOutOfMemoryError")
# More than any machine has: where all devices are equal, the one with the most memory is chosen first.
MEMORY_MB = "1000000"


def program() -> Program:
    """Its command, with the interpreter of this Python environment."""
    if not JAR.exists():
        pytest.fail(f"there is no {JAR}: run `make android` first")
    package = find_spec("ai_edge_litert")
    assert package is not None
    assert package.origin is not None
    library = Path(package.origin).parent / "libLiteRt.so"
    return Program(("java", *SMALL, "-jar", str(JAR)), ("--litert", str(library), "--memory-mb", MEMORY_MB))


def pss(process: int) -> int:
    """The proportional set size of a process in bytes."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))
