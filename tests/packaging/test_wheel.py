"""The wheel in clean environments: a device runs from it without TensorFlow, on either interpreter."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.packaging.conftest import DEBIAN, ROOT, base_requirements, run

GOLDEN = ROOT / "tests" / "vectors" / "bundle"


class Environment:
    """A virtual environment that holds nothing but what a test installs."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        run(sys.executable, "-m", "venv", folder)

    def install(self, *arguments: str | Path) -> None:
        run(self.bin / "pip", "install", "--quiet", "--only-binary", ":all:", *arguments, timeout=400)

    def has(self, module: str) -> bool:
        script = f"import importlib.util; print(importlib.util.find_spec({module!r}) is not None)"
        return run(self.bin / "python", "-c", script).strip() == "True"

    def check(self, flatbuffer: str, vector: str) -> dict[str, Any]:
        """The verdict of this environment's interpreter on a flatbuffer of the golden bundle."""
        files = (GOLDEN / flatbuffer, GOLDEN / vector)
        verdict: dict[str, Any] = json.loads(run(self.bin / "python", "-m", "edvit_tf.runtime.check", *files))
        return verdict


def golden_variants() -> list[dict[str, Any]]:
    """Every variant of every sub-model in the golden bundle, those of one sub-model together."""
    manifest = json.loads((GOLDEN / "manifest.json").read_text())
    return [variant for submodel in manifest["submodels"] for variant in submodel["variants"]]


@pytest.fixture(scope="module")
def light(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """What `pip install edvit-tf` gives, in the versions that were tested."""
    environment = Environment(tmp_path_factory.mktemp("light"))
    environment.install("--constraint", ROOT / "constraints.txt", wheel)
    return environment


@pytest.fixture(scope="module")
def old(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """What 32-bit Arm gets, tflite-runtime 2.14 and Debian's packages, on this machine's processor."""
    if sys.version_info >= (3, 12):
        pytest.skip("tflite-runtime has wheels up to Python 3.11")
    environment = Environment(tmp_path_factory.mktemp("old"))
    wanted = [str(item) for item in base_requirements(wheel, {"platform_machine": "armv7l"})]
    debian = [f"{name}=={version}" for name, version in DEBIAN.items()]
    environment.install(*wanted, "tflite-runtime==2.14.0", *debian)
    environment.install("--no-deps", wheel)
    return environment


def test_what_is_inside(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {
        "edvit_tf/bundle/manifest.schema.json",
        "edvit_tf/rpc/edvit.proto",
        "edvit_tf/rpc/edvit_pb2.py",
        "edvit_tf/rpc/edvit_pb2_grpc.py",
        "edvit_converters/__init__.py",
        "edvit_tf/py.typed",
    } <= names
    zoo = [name for name in names if name.startswith("edvit_tf/zoo/")]
    assert any(name.endswith(".safetensors") for name in zoo), "the teacher"
    assert any(name.endswith(".md") for name in zoo), "its model card"
    sources = {
        str(path.relative_to(ROOT / top))
        for top, package in (("", "edvit_tf"), ("converters", "edvit_converters"))
        for path in (ROOT / top / package).rglob("*.py")
    }
    assert sources <= names, f"left out: {sorted(sources - names)}"


@pytest.mark.parametrize("kind", ["light", "old"])
def test_a_device_runs_without_tensorflow(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    environment: Environment = request.getfixturevalue(kind)
    assert not environment.has("tensorflow")
    assert environment.has("ai_edge_litert") == (kind == "light")
    assert run(environment.bin / "edvit-tf", "--version").startswith("edvit-tf ")
    assert "--interface" in run(environment.bin / "edvit-tf", "device", "run", "--help")

    options = ("--json", "--name", kind, "--port", "0", "--store", str(tmp_path / "store"))
    command = [str(environment.bin / "edvit-tf"), "device", "run", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as device:
        try:
            assert device.stdout is not None
            ready = json.loads(device.stdout.readline())
        finally:
            device.terminate()
        assert device.wait(20) == 0
    waiting = ready["waiting"]  # of no fleet yet: it shows its code
    assert waiting["name"] == kind
    assert len(waiting["id"]) == 64
    assert waiting["code"]


@pytest.mark.parametrize(("kind", "runtime"), [("light", "ai-edge-litert"), ("old", "tflite-runtime")])
def test_the_golden_flatbuffers_are_right(kind: str, runtime: str, request: pytest.FixtureRequest) -> None:
    """Every format that the manifest says this interpreter is right in passes its test vector there."""
    environment: Environment = request.getfixturevalue(kind)
    variants = [item for item in golden_variants() if runtime in item["runtimes"]]
    assert {variant["format"] for variant in variants} >= {"f32", "int8"}
    for variant in variants:
        verdict = environment.check(variant["file"], variant["test_vector"])
        assert verdict["ok"], verdict


def test_the_old_interpreter_is_really_checked(old: Environment) -> None:
    """Another sub-model's vector does not pass, so passing means something."""
    first, *_, last = golden_variants()
    assert not old.check(first["file"], last["test_vector"])["ok"]
