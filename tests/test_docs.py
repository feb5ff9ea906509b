"""The documents do not lie about what is there: links lead somewhere, commands and targets exist."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from edvit_tf.cli.main import app

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "*/README.md", "edvit_tf/**/*.md")
    for path in ROOT.glob(pattern)
    if not path.relative_to(ROOT).parts[0].startswith((".", "build"))
)


def commands(document: Path) -> Iterator[list[str]]:
    """Each command line in a fenced `sh` block or an indented block of a document, in words."""
    fenced = False
    for line in document.read_text().splitlines():
        if line.startswith("```"):
            fenced = line == "```sh"
        elif fenced or line.startswith("    "):
            try:
                yield shlex.split(line, comments=True)
            except ValueError:  # an indented picture or paragraph, no command
                continue


def anchors(document: Path) -> set[str]:
    """The names under which a document's headings can be linked to."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
class TestDocument:
    def test_links(self, document: Path) -> None:
        for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
            if target.startswith(("https://", "http://")):
                continue
            name, _, anchor = target.partition("#")
            file = (document.parent / name).resolve() if name else document
            assert file.exists(), target
            assert not anchor or anchor in anchors(file), target

    def test_files_named_exist(self, document: Path) -> None:
        folders = "edvit_tf|converters|tools|benchmarks|android_bridge|tests|docs"
        for name in re.findall(rf"`((?:{folders})/[\w./-]*)`", document.read_text()):
            assert (ROOT / name).exists(), name

    def test_commands(self, document: Path) -> None:
        targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
        for words in commands(document):
            if words[:1] == ["make"]:
                assert words[1] in targets, words
            elif words and Path(words[0]).name == "edvit-tf":
                check_verb(words[1:])


def check_verb(words: list[str]) -> None:
    """Follow the words down to a verb, and hold the options against what it takes."""
    command: Any = typer.main.get_command(app)
    while words and hasattr(command, "commands"):
        assert words[0] in command.commands, words
        command, words = command.commands[words[0]], words[1:]
    known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    assert {word for word in words if word.startswith("--")} <= known, words


def test_the_check_sees_a_wrong_command() -> None:
    with pytest.raises(AssertionError):
        check_verb(["fly"])
    with pytest.raises(AssertionError):
        check_verb(["--unknown"])
