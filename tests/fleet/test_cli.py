"""The verbs of the fleet without a fleet: a bundle in this process, and mistakes."""

import json
import re
import socket
from pathlib import Path

import pytest
from PIL import Image

from edvit_tf.bundle.reader import Bundle, open_bundle
from edvit_tf.cli.main import main
from edvit_tf.fleet.keys import make_keys
from tests.fleet.fakes import picture


@pytest.fixture
def folder(bundle: Bundle, tmp_path: Path) -> Path:
    """Two pictures, one of them further down."""
    pictures = tmp_path / "pictures"
    (pictures / "deeper").mkdir(parents=True)
    for seed, name in enumerate(("b.png", "deeper/a.jpg")):
        image = picture(bundle, seed)
        Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(pictures / name)
    (pictures / "notes.txt").write_text("not a picture")
    return pictures


def test_a_bundle_can_be_tried_before_there_is_any_device(
    bundle: Bundle, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["infer", "--local", str(bundle.path), str(folder), "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["image"] for line in lines] == [str(folder / "b.png"), str(folder / "deeper" / "a.jpg")]
    for line in lines:
        assert line["label"] in bundle.manifest.classes
        assert len(line["probabilities"]) == len(bundle.manifest.classes)
        assert line["complete"] is True
        assert line["answered"] == line["expected"] == len(bundle.manifest.submodels)
        assert line["missing"] == line["weak_classes"] == []


def test_without_json_a_line_for_a_person(
    bundle: Bundle, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["infer", "--local", str(bundle.path), str(folder / "b.png")]) == 0
    assert re.fullmatch(r".*b\.png: \w+ \(\d+%, \d+ ms\)\n", capsys.readouterr().out)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
    return port


MISTAKES = {
    "no such picture": (["infer", "--local", "BUNDLE", "none.png"], 1, "there is no picture at none.png"),
    "no picture inside": (["infer", "--local", "BUNDLE", "EMPTY"], 1, "holds no picture"),
    "not a picture": (["infer", "--local", "BUNDLE", "TEXT"], 1, "not a picture"),
    "both ways": (["infer", "--local", "BUNDLE", "--state", "x", "TEXT"], 2, "not both"),
    "no bundle": (["infer", "--local", "none", "TEXT"], 1, "no bundle at none"),
    "nothing deployed": (["infer", "--state", "EMPTY", "TEXT"], 2, "fleet deploy BUNDLE"),
    "no status": (["fleet", "status", "--state", "EMPTY"], 2, "fleet deploy BUNDLE"),
    "no keys": (["fleet", "deploy", "BUNDLE", "--state", "EMPTY"], 1, "run `edvit-tf fleet init`"),
    "address": (["fleet", "deploy", "BUNDLE", "--state", "FLEET", "--address", "nonsense"], 2, "host:port"),
    "nobody there": (
        ["fleet", "deploy", "BUNDLE", "--state", "FLEET", "--address", "127.0.0.1:PORT"],
        1,
        "check that `edvit-tf device run` is running there",
    ),
    "expired": (["fleet", "deploy", "BUNDLE", "--state", "FLEET", "--expires", "2001-02-03"], 2, "is over"),
    "no day": (["fleet", "deploy", "BUNDLE", "--state", "FLEET", "--expires", "soon"], 2, "%Y-%m-%d"),
    "port": (["device", "run", "--port", "65536", "--store", "EMPTY"], 2, "--port must be"),
    "port text": (["device", "run", "--port", "x", "--store", "EMPTY"], 2, "valid integer"),
    "interface": (["device", "run", "--interface", "eth0", "--store", "EMPTY"], 2, "IPv4 address"),
    "memory": (["device", "run", "--memory-mb", "nan", "--store", "EMPTY"], 2, "--memory-mb must be"),
    "no memory": (["device", "run", "--memory-mb", "-1", "--store", "EMPTY"], 2, "--memory-mb must be"),
    "store": (["device", "run", "--port", "0", "--store", "TEXT"], 1, "cannot use the store"),
    "dial": (["device", "run", "--dial", "aggregator", "--store", "EMPTY"], 2, "--dial takes host:port"),
    "dial as a service": (["device", "install-service", "--dial", "x:0"], 2, "--dial takes host:port"),
    "listen": (
        ["fleet", "deploy", "BUNDLE", "--state", "FLEET", "--listen", "x:1"],
        2,
        "--listen takes an IP",
    ),
    "timeout": (["fleet", "discover", "--timeout", "-1"], 2, "timeout"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_sentence(
    mistake: str, bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, status, sentence = MISTAKES[mistake]
    empty, text, fleet = tmp_path / "empty", tmp_path / "text.png", tmp_path / "fleet"
    empty.mkdir()
    text.write_text("no picture")
    make_keys(fleet)
    places = {"BUNDLE": str(bundle.path), "EMPTY": str(empty), "TEXT": str(text), "FLEET": str(fleet)}
    given = [places.get(part, part).replace("PORT", str(free_port())) for part in arguments]
    assert main([*given, "--json"]) == status
    out = capsys.readouterr().out
    (line,) = out.splitlines()
    error = json.loads(line)["error"]
    assert sentence in error["message"]
    assert error["code"]
    assert "\n" not in error["message"]


def test_the_owner_says_until_when_a_bundle_may_be_installed(bundle: Bundle, tmp_path: Path) -> None:
    make_keys(tmp_path)
    nobody = ["--address", f"127.0.0.1:{free_port()}"]
    arguments = ["fleet", "deploy", str(bundle.path), "--state", str(tmp_path), "--expires", "2999-12-31"]
    assert main([*arguments, *nobody]) == 1
    (signed,) = (tmp_path / "bundles").iterdir()
    assert open_bundle(signed).manifest.expires == "2999-12-31T00:00:00Z"
