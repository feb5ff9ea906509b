"""A join token as a phone reads it: by its camera."""

from pathlib import Path

from typer.testing import CliRunner

from edvit_tf.cli.main import app
from edvit_tf.cli.output import qr_code
from edvit_tf.fleet.keys import make_keys
from edvit_tf.rpc.pairing import read_token


def test_a_token_is_shown_as_a_qr_code_too(tmp_path: Path) -> None:
    make_keys(tmp_path)
    plain = CliRunner().invoke(app, ["fleet", "token", "--state", str(tmp_path)])
    assert plain.exit_code == 0
    assert len(plain.stdout.split()) == 1
    shown = CliRunner().invoke(app, ["fleet", "token", "--qr", "--state", str(tmp_path)])
    assert shown.exit_code == 0
    token, picture = shown.stdout.split("\n", 1)
    assert read_token(token)
    assert picture.strip("\n") == qr_code(token).strip("\n")
    assert token not in picture
