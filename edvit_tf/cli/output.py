"""What a verb says, and to whom: the one place that knows about `--json`.

With `--json` standard output carries JSON objects, one a line, and nothing else; whatever is meant for a
person goes to standard error in both modes. A verb file holds one function, takes `--json` with the shared
type, imports its room inside the function (so that `edvit-tf device run` never meets TensorFlow and `--help`
is quick), raises `EdvitError` when something is wrong, and prints nothing itself:

    BundleArgument = Annotated[Path, typer.Argument(help="A bundle folder.")]

    def inspect(bundle: BundleArgument, json: JsonOption = False) -> None:
        '''Say what is in a bundle.'''
        from edvit_tf.bundle.reader import open_bundle

        opened = open_bundle(bundle)
        say(f"reading {bundle}")  # standard error, always
        if json:
            emit({"name": opened.manifest.name})  # standard output, one line
        else:
            show(opened.manifest.name)  # standard output: the answer itself, as text or a rich table

Progress bars are drawn with `rich.progress.Progress(console=screen)`.
"""

import json as encoder
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Annotated

import typer
from rich.console import Console, RenderableType

JsonOption = Annotated[
    bool,
    typer.Option("--json", help="Print JSON objects on standard output, everything else on standard error."),
]

# Square brackets are text here: `pip install 'edvit-tf[export]'` must arrive whole.
screen = Console(stderr=True, markup=False, highlight=False)


def emit(value: Mapping[str, object] | Sequence[object]) -> None:
    """Write one JSON object (or list) as one line on standard output, at once.

    Paths become strings. Anything else that is not JSON, NaN and infinities among them, is an error in the
    caller: TypeError or ValueError.
    """
    print(encoder.dumps(value, allow_nan=False, default=_path), flush=True)  # noqa: T201


def show(answer: RenderableType) -> None:
    """Print what a person asked for on standard output: a sentence or a rich table."""
    Console(markup=False, highlight=False).print(answer, soft_wrap=isinstance(answer, str))


def say(message: RenderableType) -> None:
    """Print what goes on, for a person, on standard error. A sentence is never wrapped: it can be pasted."""
    screen.print(message, soft_wrap=isinstance(message, str))


def qr_code(text: str) -> str:
    """A QR code that a terminal can show."""
    import io

    import segno

    drawing = io.StringIO()
    segno.make(text, error="l").terminal(drawing, border=2, compact=True)
    return drawing.getvalue()


def wants_json(arguments: Sequence[str]) -> bool:
    """Tell whether `--json` is among the options: errors must know it even when parsing has failed."""
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return "--json" in options


def fail(code: str, message: str, *, json: bool) -> None:
    """Report one error: an object with `--json`, a sentence otherwise."""
    if json:
        emit({"error": {"code": code, "message": message}})
    else:
        say(f"edvit-tf: {message}")


def _path(value: object) -> str:
    if isinstance(value, PurePath):
        return str(value)
    raise TypeError(f"{type(value).__name__} is not JSON")
