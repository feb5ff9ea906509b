"""`edvit-tf`: the verbs put together, and every error turned into one sentence and an exit status.

Exit status: 0 done, 2 a bad argument or configuration, 130 Ctrl-C, 1 everything else.
"""

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from edvit_tf import __version__
from edvit_tf.cli.benchmark import benchmark
from edvit_tf.cli.cache import cache
from edvit_tf.cli.demo import demo
from edvit_tf.cli.device import app as device
from edvit_tf.cli.evaluate import evaluate
from edvit_tf.cli.export import export
from edvit_tf.cli.fleet import app as fleet
from edvit_tf.cli.infer import infer
from edvit_tf.cli.inspect import inspect
from edvit_tf.cli.output import fail, say, wants_json
from edvit_tf.cli.phone import app as phone
from edvit_tf.cli.serve import serve
from edvit_tf.cli.train import train
from edvit_tf.errors import EdvitError

app = typer.Typer(
    name="edvit-tf",
    help="One Vision Transformer, too big for any device you own, running on several small ones.",
    no_args_is_help=True,
    add_completion=False,
)


def _version(asked: bool) -> None:
    if asked:
        print(f"edvit-tf {__version__}")  # noqa: T201
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    pass


app.command()(train)
app.command()(export)
app.command()(inspect)
app.command()(evaluate)
app.command()(benchmark)
app.command()(cache)
app.add_typer(device, name="device")
app.add_typer(fleet, name="fleet")
app.add_typer(phone, name="phone")
app.command()(infer)
app.command()(serve)
app.command()(demo)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit status.

    An `EdvitError` and a usage error become one sentence on standard error, or, with `--json`,
    `{"error": {"code", "message"}}` on standard output. Any other exception is a bug: it passes with its
    traceback, unless `--json` is given, which promises objects and gets the code `bug`.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    json = wants_json(given)
    try:
        result = typer.main.get_command(app).main(given, prog_name="edvit-tf", standalone_mode=False)
    except EdvitError as error:
        fail(error.code, error.message, json=json)
        return error.exit_status
    except typer.TyperException as error:
        return _usage(error, json=json)
    except KeyboardInterrupt:
        return _interrupted(json=json)
    except Exception as error:
        if not json:
            raise
        fail("bug", f"{type(error).__name__}: {error}", json=True)
        return 1
    if result == _INTERRUPTED:
        return _interrupted(json=json)
    return result if isinstance(result, int) else 0


_INTERRUPTED = 130  # what typer makes of KeyboardInterrupt


def _interrupted(*, json: bool) -> int:
    fail("interrupted", "interrupted", json=json)
    return _INTERRUPTED


def _usage(error: typer.TyperException, *, json: bool) -> int:
    message = " ".join(error.format_message().split())
    context: typer.Context | None = getattr(error, "ctx", None)
    if message:  # empty when a group was called with nothing: its help has been printed
        fail("usage", message, json=json)
        if context is not None and not json:
            say(f"Try '{context.command_path} --help'.")
    return 2


if __name__ == "__main__":
    sys.exit(main())
