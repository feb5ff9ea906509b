"""A machine of another architecture, of Debian's packages in a folder: nothing is installed, no root needed.

QEMU's user mode runs Debian's Python for Arm, with an interpreter's own wheel for it.
"""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

_SECONDS = 300
_PYTHON = ("python3-minimal", "python3-numpy", "libstdc++6")


@dataclass(frozen=True, slots=True)
class Machine:
    """A kind of machine.

    Attributes:
        debian: Debian's name for it.
        qemu: QEMU's.
        processor: one that QEMU is to be, of a Raspberry Pi.
        wheel: its tag in the names of wheels.
        cpuinfo: what `/proc/cpuinfo` says there.
    """

    debian: str
    qemu: str
    processor: str
    wheel: str
    cpuinfo: str


def _cpuinfo(part: str, features: str) -> str:
    return (
        f"processor\t: 0\nFeatures\t: {features}\nCPU implementer\t: 0x41\nCPU architecture: 8\n"
        f"CPU variant\t: 0x0\nCPU part\t: {part}\nCPU revision\t: 0\n\n"
    )


_V8 = "fp asimd evtstrm crc32 cpuid"
# The second has the dot products of 8-bit integers, for which interpreters have kernels of their own.
PI_4 = Machine("arm64", "aarch64", "cortex-a72", "aarch64", _cpuinfo("0xd08", _V8))
PI_5 = Machine(
    "arm64", "aarch64", "cortex-a76", "aarch64", _cpuinfo("0xd0b", f"{_V8} atomics fphp asimdhp asimddp")
)
PI_32 = Machine(
    "armhf",
    "arm",
    "cortex-a7",
    "armv7l",
    _cpuinfo("0xc07", "half thumb fastmult vfp edsp neon vfpv3 vfpv4 idiva"),
)


class Debian:
    """What was unpacked so far below a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def python(self, machine: Machine, interpreter: str, version: str) -> list[str]:
        """The command of a Python there that has an interpreter's wheel; skips where there is none."""
        qemu = self._qemu(machine)
        root = self._unpacked(machine.debian, *_PYTHON)
        self._pretend(machine, root)
        (python,) = [path for path in (root / "usr/bin").glob("python3.*") if path.name.count(".") == 1]
        site = self._wheel(machine, interpreter, version, python.name.removeprefix("python"))
        libraries = [str(path) for name in ("blas", "lapack") for path in root.glob(f"usr/lib/*/{name}")]
        return [
            *(str(qemu), "-cpu", machine.processor, "-L", str(root)),
            *("-E", f"LD_LIBRARY_PATH={':'.join(libraries)}", "-E", f"PYTHONPATH={site}"),
            str(python),
        ]

    def _qemu(self, machine: Machine) -> Path:
        name = f"qemu-{machine.qemu}-static"
        here = shutil.which(name)
        return Path(here) if here else self._unpacked("", "qemu-user-static") / "usr/bin" / name

    def _unpacked(self, architecture: str, *packages: str) -> Path:
        """The root of these packages and of what they need; without a name they are for this machine."""
        if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
            pytest.skip("there is no apt-get, which has Python for other machines")
        folder = self._folder / (architecture or "here")
        root = folder / "root"
        if root.is_dir():
            return root
        for name in ("state/lists/partial", "cache/archives/partial"):
            (folder / name).mkdir(parents=True)
        (folder / "status").touch()
        options = [
            *("-qq", "-oAPT::Sandbox::User=", "-oAcquire::Retries=1", "-oAcquire::http::Timeout=20"),
            f"-oDir::State={folder}/state",
            f"-oDir::State::status={folder}/status",
            f"-oDir::Cache={folder}/cache",
        ]
        if architecture:
            options += [f"-oAPT::Architecture={architecture}", f"-oAPT::Architectures={architecture}"]
        _run("apt-get", *options, "update")  # one list of several may be missing: what follows finds out
        wanted = ["install", "--yes", "--download-only", "--no-install-recommends", *packages]
        said = _run("apt-get", *options, *wanted)
        archives = sorted((folder / "cache/archives").glob("*.deb"))
        if not archives:
            pytest.skip(
                f"apt-get has no {' '.join(packages)} for {architecture or 'this machine'}: {said[-300:]}"
            )
        for archive in archives:
            _run("dpkg", "-x", archive, root)
        return root

    def _pretend(self, machine: Machine, root: Path) -> None:
        """Have programs there find an Arm processor: QEMU shows them this machine's."""
        for name, text in {
            "proc/cpuinfo": machine.cpuinfo,
            "sys/devices/system/cpu/possible": "0\n",
            "sys/devices/system/cpu/present": "0\n",
        }.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)

    def _wheel(self, machine: Machine, interpreter: str, version: str, python: str) -> Path:
        site = self._folder / f"{interpreter}-{machine.wheel}"
        if site.is_dir():
            return site
        tags = [f"manylinux_2_{minor}_{machine.wheel}" for minor in range(17, 37)]
        platforms = [
            part for tag in (f"manylinux2014_{machine.wheel}", *tags) for part in ("--platform", tag)
        ]
        install: list[str | Path] = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
        install += ["--only-binary", ":all:", "--target", site, "--python-version", python, *platforms]
        said = _run(*install, f"{interpreter}=={version}")
        if not site.is_dir():
            pytest.skip(f"{interpreter} has no wheel for {machine.wheel} and Python {python}: {said[-300:]}")
        return site


def _run(*command: str | Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=_SECONDS, env=environment
    )
    return done.stdout + done.stderr
