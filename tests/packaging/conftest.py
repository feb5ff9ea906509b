"""One wheel, built once by the way that `make dist` builds it, and what its metadata requires."""

import email
import os
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]

# What Debian 12 ships of the three packages that have no armv7l wheel in the usual index.
DEBIAN = {"numpy": "1.24.2", "pillow": "9.4.0", "cffi": "1.15.1"}


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source archive, so that the archive is proved whole too."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT)
    (built,) = folder.glob("*.whl")
    return built


def base_requirements(wheel: Path, environment: Mapping[str, str]) -> list[Requirement]:
    """What the wheel requires without any extra in `environment`, for example {"platform_machine": "armv7l"}.

    pip evaluates markers for the interpreter it runs on, even when it is asked about another platform.
    """
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
    wanted = []
    for line in metadata.get_all("Requires-Dist", []):
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": "", **environment}):
            requirement.marker = None
            wanted.append(requirement)
    return wanted


def run(*command: str | Path, timeout: float = 240) -> str:
    """Standard output of a command that succeeds; what it said on standard error when it does not."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
        env=environment,
        cwd=Path.home(),
    )
    if done.returncode != 0:
        pytest.fail(f"{' '.join(map(str, command))}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return done.stdout
