"""The verb `serve` before it serves: mistakes."""

import json
from pathlib import Path

import pytest

from edvit_tf.cli.main import main

MISTAKES = {
    "no port": (["--http", "127.0.0.1"], 2, "--http takes an IP address"),
    "no address": (["--http", "localhost:80"], 2, "--http takes an IP address"),
    "no such port": (["--grpc", "127.0.0.1:65536"], 2, "--grpc takes an IP address"),
    "deadline": (["--deadline", "0"], 2, "deadline"),
    "in flight": (["--in-flight", "0"], 2, "in-flight"),
    "no fleet": ([], 1, "fleet init"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_sentence(mistake: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, status, sentence = MISTAKES[mistake]
    assert main(["serve", "--state", str(tmp_path), *arguments, "--json"]) == status
    (line,) = capsys.readouterr().out.splitlines()
    assert sentence in json.loads(line)["error"]["message"]


def test_without_the_extra_it_says_which(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "edvit_tf.fleet.serve.service", None)
    assert main(["serve", "--state", str(tmp_path), "--json"]) == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "missing_package"
    assert "edvit-tf[serve]" in error["message"]
