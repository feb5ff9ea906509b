"""The command's frame: errors become one sentence or one object, and light verbs stay light."""

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from edvit_tf import __version__
from edvit_tf.cli import main as cli
from edvit_tf.cli.output import JsonOption, emit, say, show
from edvit_tf.errors import BundleError, MissingPackage, UsageError


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """A verb that ends as its argument says, in an application of its own."""
    app = typer.Typer()

    @app.callback()
    def options() -> None:
        pass

    @app.command("probe")
    def probe(ending: str, number: int = 0, json: JsonOption = False) -> None:
        endings = {
            "usage": UsageError("ask for at most 10 groups"),
            "bundle": BundleError("this bundle was changed", code="bundle.hash"),
            "missing": MissingPackage("run pip install 'edvit-tf[export]'"),
            "interrupt": KeyboardInterrupt(),
            "bug": ZeroDivisionError("by zero"),
        }
        say("working")
        if ending in endings:
            raise endings[ending]
        if json:
            emit({"number": number})
        else:
            show(f"number {number}")

    monkeypatch.setattr(cli, "app", app)


@pytest.mark.usefixtures("probe")
class TestErrors:
    @pytest.mark.parametrize(
        ("arguments", "status", "code"),
        [
            (["probe", "usage"], 2, "usage"),
            (["probe", "bundle"], 1, "bundle.hash"),
            (["probe", "missing"], 1, "missing_package"),
            (["probe", "interrupt"], 130, "interrupted"),
            (["probe"], 2, "usage"),
            (["probe", "good", "--number", "x"], 2, "usage"),
            (["probe", "good", "--unknown"], 2, "usage"),
            (["unknown"], 2, "usage"),
        ],
    )
    def test_a_sentence_or_an_object(
        self, capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, code: str
    ) -> None:
        assert cli.main(arguments) == status
        human = capsys.readouterr()
        assert human.out == ""
        assert "edvit-tf: " in human.err
        assert "Traceback" not in human.err

        assert cli.main([*arguments, "--json"]) == status
        machine = capsys.readouterr()
        error = json.loads(machine.out)["error"]
        assert error["code"] == code
        assert f"edvit-tf: {error['message']}" in human.err

    def test_square_brackets_and_long_lines_arrive_whole(self, capsys: pytest.CaptureFixture[str]) -> None:
        cli.main(["probe", "missing"])
        assert capsys.readouterr().err == "working\nedvit-tf: run pip install 'edvit-tf[export]'\n"
        say("word " * 100 + "end")
        assert capsys.readouterr().err == "word " * 100 + "end\n"

    def test_a_bug_keeps_its_traceback_unless_objects_are_promised(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(ZeroDivisionError):
            cli.main(["probe", "bug"])
        capsys.readouterr()
        assert cli.main(["probe", "bug", "--json"]) == 1
        assert json.loads(capsys.readouterr().out) == {
            "error": {"code": "bug", "message": "ZeroDivisionError: by zero"}
        }

    def test_a_file_named_json_is_no_option(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["probe", "--", "--json"]) == 0
        assert capsys.readouterr().out == "number 0\n"

    def test_objects_are_alone_on_standard_output(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["probe", "good", "--number", "3", "--json"]) == 0
        captured = capsys.readouterr()
        assert captured.out == '{"number": 3}\n'
        assert captured.err == "working\n"


def test_what_is_not_json_is_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        emit({"latency": float("nan")})
    with pytest.raises(TypeError, match="set is not JSON"):
        emit({"classes": {1}})


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"edvit-tf {__version__}\n"


def test_every_verb_takes_json() -> None:
    def verbs(command: Any, name: str) -> Iterator[tuple[str, set[str]]]:
        for child, inner in getattr(command, "commands", {}).items():
            yield from verbs(inner, f"{name}{child} ")
        if not hasattr(command, "commands"):
            yield name.strip(), {option for parameter in command.params for option in parameter.opts}

    found = dict(verbs(typer.main.get_command(cli.app), ""))
    assert set(found) == {
        *("train", "export", "inspect", "evaluate", "infer", "benchmark", "demo", "serve", "cache"),
        *("device run", "fleet discover", "fleet deploy", "fleet status"),
        *("device leave", "fleet rollback", "fleet init", "fleet token", "fleet adopt"),
        *(f"phone {verb}" for verb in ("list", "install", "push", "benchmark", "logs")),
        "device install-service",
        *("fleet placements", "fleet logs", "fleet drain", "fleet remove", "fleet benchmark"),
    }
    assert all("--json" in options for options in found.values())


def test_help_loads_no_room() -> None:
    """Every verb's `--help` answers without TensorFlow, gRPC or a room of ours."""
    script = """
import sys
from edvit_tf.cli.main import main
status = main(["--help"])
rooms = "build bundle device fleet plan rpc runtime vit zoo".split()
heavy = "tensorflow tf_keras keras grpc zeroconf ai_edge_litert edvit_converters".split()
loaded = [name for name in [*heavy, *("edvit_tf." + room for room in rooms)] if name in sys.modules]
sys.exit(f"loaded: {loaded}" if loaded else status)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
