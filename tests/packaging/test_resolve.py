"""The base install resolves to wheels alone on every machine it is meant for: a board compiles nothing."""

import sys
import zipfile
from pathlib import Path

import pytest

from tests.packaging.conftest import DEBIAN, base_requirements, run

GLIBC = range(17, 37)  # Debian 12 and Raspberry Pi OS of its time have 2.36


def resolve(requirements: list[str], machine: str, python: str, folder: Path, *more: str) -> str:
    """What pip says it would install for another machine and Python, wheels only."""
    tags = [f"manylinux_2_{minor}_{machine}" for minor in GLIBC] + [
        f"manylinux2014_{machine}",
        f"linux_{machine}",
    ]
    platforms = [part for tag in tags for part in ("--platform", tag)]
    report = run(
        *(
            sys.executable,
            "-m",
            "pip",
            "install",
            "--dry-run",
            "--only-binary",
            ":all:",
            "--progress-bar",
            "off",
        ),
        *("--target", str(folder / "target"), "--python-version", python, *platforms, *more, *requirements),
    )
    return next(line for line in report.splitlines() if line.startswith("Would install"))


def as_debian_package(name: str, version: str, folder: Path) -> None:
    """A wheel that stands for a package of Debian's: its name and version, so that pip counts it as there."""
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        information = f"{name}-{version}.dist-info"
        archive.writestr(
            f"{information}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        archive.writestr(
            f"{information}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{information}/RECORD", "")


@pytest.mark.parametrize(
    ("machine", "python"), [("x86_64", "3.11"), ("x86_64", "3.13"), ("aarch64", "3.11"), ("aarch64", "3.13")]
)
def test_64_bit(wheel: Path, tmp_path: Path, machine: str, python: str) -> None:
    wanted = [str(item) for item in base_requirements(wheel, {"platform_machine": machine})]
    line = resolve(wanted, machine, python, tmp_path)
    assert " ai-edge-litert-" in line
    assert " tensorflow-" not in line


def test_32_bit_arm(wheel: Path, tmp_path: Path) -> None:
    """All but numpy, Pillow and cffi; those as old as Debian's will do."""
    wanted = [str(item) for item in base_requirements(wheel, {"platform_machine": "armv7l"})]
    for name, version in DEBIAN.items():
        as_debian_package(name, version, tmp_path)
    line = resolve(wanted, "armv7l", "3.11", tmp_path, "--find-links", str(tmp_path))
    assert " tflite-runtime-2.14.0" in line
    assert all(f" {name}-{version}" in line for name, version in DEBIAN.items())
    assert " ai-edge-litert-" not in line
