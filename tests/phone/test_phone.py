"""`edvit-tf phone` with a real adb server and a phone that speaks adb's protocol."""

import hashlib
import json
import os
import re
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
from zeroconf import ServiceInfo, Zeroconf

from edvit_tf.cli.main import main
from edvit_tf.phone.benchmark import Measured, parse
from tests.phone.conftest import connect
from tests.phone.fake_phone import FakePhone

GOLDEN = Path(__file__).parents[1] / "vectors" / "bundle"
FLATBUFFERS = json.loads((GOLDEN / "manifest.json").read_text("utf-8"))

# Line for line what TensorFlow's tools/benchmark and stats_calculator.h print; the numbers are made up.
PRINTED = (Path(__file__).parent / "benchmark_model.txt").read_text("utf-8")
WHOLLY = (
    "Explicitly applied XNNPACK delegate, and the model graph will be completely executed by the delegate."
)


def answer(capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> dict[str, Any]:
    """What a verb says with --json."""
    capsys.readouterr()
    assert main(["phone", *words, "--json"]) == status
    line: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return line


def error(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[str, str]:
    """The code and the sentence of a verb that fails."""
    told = answer(capsys, *words, status=1)["error"]
    return told["code"], told["message"]


def tool(folder: Path, printed: str = PRINTED, errors: str = "", status: int = 0) -> Path:
    """A benchmark_model that measures nothing, and checks that it was given a flatbuffer."""
    path = folder / "benchmark_model"
    check = 'test -s "${1#--graph=}" || exit 9'
    says = f'cat <<"END"\n{printed}END\ncat >&2 <<"END"\n{errors}END'
    path.write_text(f"#!/bin/sh\n{check}\n{says}\nexit {status}\n")
    return path


class TestWithoutAdb:
    def test_one_sentence_says_how_to_get_it(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        for words in (["list"], ["push", str(GOLDEN)], ["benchmark", str(GOLDEN)], ["logs"]):
            code, sentence = error(capsys, *words)
            assert code == "phone.adb"
            assert "sudo apt install adb" in sentence


class TestList:
    def test_a_phone_and_one_in_the_network(
        self, phone: FakePhone, capsys: pytest.CaptureFixture[str]
    ) -> None:
        service = "_adb-tls-connect._tcp.local."
        info = ServiceInfo(
            service, f"adb-test-{os.getpid()}.{service}", 37001, addresses=[socket.inet_aton("127.0.0.1")]
        )
        with Zeroconf(interfaces=["127.0.0.1"]) as network:
            network.register_service(info)
            told = answer(capsys, "list", "--timeout", "3")
        assert told["phones"] == [{"serial": phone.serial, "state": "device", "model": "Fake Phone 9"}]
        assert {"name": f"adb-test-{os.getpid()}", "address": "127.0.0.1:37001"} in told["nearby"]

    def test_what_a_person_reads(self, phone: FakePhone, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["phone", "list", "--timeout", "0"]) == 0
        assert f"{phone.serial} Fake Phone 9: ready" in capsys.readouterr().out


class TestChoosing:
    def test_no_phone(self, adb_server: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert adb_server
        assert error(capsys, "logs")[0] == "phone.none"

    def test_several(
        self, adb_server: str, phone: FakePhone, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with FakePhone(tmp_path / "other") as other:
            connect(adb_server, other)
            code, sentence = error(capsys, "logs")
            assert code == "phone.several"
            assert phone.serial in sentence
            assert other.serial in sentence
            other.program("logcat", "echo of the other")
            assert answer(capsys, "logs", "--phone", other.serial)["line"] == "of the other"
            assert error(capsys, "logs", "--phone", "emulator-5554")[0] == "phone.none"


class TestInstall:
    def test_the_app_arrives_whole(
        self, phone: FakePhone, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        apk = tmp_path / "app.apk"
        apk.write_bytes(os.urandom(700_000))
        assert answer(capsys, "install", str(apk))["phone"] == phone.serial
        assert phone.installed == [apk.read_bytes()]
        assert any("-r" in command for command in phone.commands), (
            "an older one is replaced, and keeps its data"
        )

    def test_a_refusal_says_what_to_do(
        self, phone: FakePhone, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        apk = tmp_path / "app.apk"
        apk.write_bytes(b"app")
        phone.install_says = "Failure [INSTALL_FAILED_USER_RESTRICTED: Install canceled by user]"
        code, sentence = error(capsys, "install", str(apk))
        assert code == "phone.install"
        assert "INSTALL_FAILED_USER_RESTRICTED" in sentence
        assert sentence.endswith("allow the installation on the phone's screen.")

    def test_no_such_file(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert answer(capsys, "install", "nowhere.apk", status=2)["error"]["code"] == "usage"


class TestPush:
    def test_every_flatbuffer_once(self, phone: FakePhone, capsys: pytest.CaptureFixture[str]) -> None:
        told = answer(capsys, "push", str(GOLDEN))
        names = {one["file"] for one in told["flatbuffers"]}
        parts = {variant["file"] for part in FLATBUFFERS["submodels"] for variant in part["variants"]}
        assert names == parts | {FLATBUFFERS["teacher"]["file"]}
        assert told["sent_bytes"] == sum(one["bytes"] for one in told["flatbuffers"])
        for one in told["flatbuffers"]:
            there = phone.disk / one["path"].removeprefix("/data/local/tmp/")
            assert (
                hashlib.sha256(there.read_bytes()).digest()
                == hashlib.sha256((GOLDEN / one["file"]).read_bytes()).digest()
            )
        assert answer(capsys, "push", str(GOLDEN))["sent_bytes"] == 0

    def test_what_was_changed_there_is_sent_again(
        self, phone: FakePhone, capsys: pytest.CaptureFixture[str]
    ) -> None:
        first = answer(capsys, "push", str(GOLDEN))["flatbuffers"][0]
        (phone.disk / first["path"].removeprefix("/data/local/tmp/")).write_bytes(b"something else")
        assert answer(capsys, "push", str(GOLDEN))["sent_bytes"] == first["bytes"]

    def test_a_broken_bundle_is_not_sent(
        self, phone: FakePhone, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        shutil.copytree(GOLDEN, tmp_path / "bundle")
        with (tmp_path / "bundle" / FLATBUFFERS["teacher"]["file"]).open("ab") as file:
            file.write(b"\0")
        assert error(capsys, "push", str(tmp_path / "bundle"))[0].startswith("bundle.")
        assert not list(phone.disk.iterdir())


class TestBenchmark:
    def test_every_flatbuffer_is_measured(
        self, phone: FakePhone, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        told = answer(
            capsys, "benchmark", str(GOLDEN), "--tool", str(tool(tmp_path)), "--threads", "2", "--runs", "7"
        )
        assert told["model"] == "Fake Phone 9"
        assert [row["format"] for row in told["rows"]].count("") == 1, "the whole model is measured too"
        for row in told["rows"]:
            assert row["mean_ms"] == pytest.approx(1.70325)
            assert row["xnnpack"] == "completely"
        asked = [command for command in phone.commands if "--graph=" in command]
        assert len(asked) == len(told["rows"])
        assert all(
            "--num_threads=2 --num_runs=7" in command and "--use_xnnpack=true" in command for command in asked
        )

    def test_the_tool_stays_for_the_next_time(
        self, phone: FakePhone, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        code, sentence = error(capsys, "benchmark", str(GOLDEN))
        assert code == "phone.tool"
        assert "--tool" in sentence
        main(["phone", "benchmark", str(GOLDEN), "--tool", str(tool(tmp_path))])
        assert "Fake Phone 9" in capsys.readouterr().out
        assert answer(capsys, "benchmark", str(GOLDEN))["phone"] == phone.serial

    def test_a_flatbuffer_that_does_not_run_is_named(
        self, phone: FakePhone, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert phone
        said = "INFO: STARTING!\nINFO: Loaded model part.tflite\n"
        errors = (
            "ERROR: Node number 57 (BATCH_MATMUL) failed to prepare.\n"
            "ERROR: Failed to allocate tensors!\n"
            "ERROR: Benchmarking failed.\n"
        )
        broken = tool(tmp_path, said, errors, status=1)
        code, sentence = error(capsys, "benchmark", str(GOLDEN), "--tool", str(broken))
        assert code == "phone.benchmark"
        assert FLATBUFFERS["submodels"][0]["variants"][0]["file"] in sentence
        assert sentence.endswith("Node number 57 (BATCH_MATMUL) failed to prepare.")

    def test_a_tool_for_another_processor_is_named(
        self, phone: FakePhone, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert phone
        other = tool(tmp_path, "", "benchmark_model: not executable: 64-bit ELF file\n", status=126)
        sentence = error(capsys, "benchmark", str(GOLDEN), "--tool", str(other))[1]
        assert "(exit status 126): benchmark_model: not executable: 64-bit ELF file" in sentence


class TestParse:
    def test_the_measurement_is_the_last_one(self) -> None:
        assert parse(PRINTED) == Measured(587, 1.70325, 1.688, 0.008, 5.512, 6.5, "completely")

    def test_what_is_not_said_is_not_there(self) -> None:
        lines = [
            line for line in PRINTED.splitlines() if "peak memory" not in line and "Explicitly" not in line
        ]
        measured = parse("\n".join(lines))
        assert measured is not None
        assert measured.peak_mb is None
        assert measured.xnnpack == ""

    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            (WHOLLY, "completely"),
            (
                "Explicitly applied XNNPACK delegate, and the model graph will be partially executed",
                "partially",
            ),
            (
                "Though XNNPACK delegate is explicitly applied, the model graph will not be executed",
                "not",
            ),
        ],
    )
    def test_how_much_xnnpack_runs(self, line: str, expected: str) -> None:
        measured = parse(PRINTED.replace(WHOLLY, line))
        assert measured is not None
        assert measured.xnnpack == expected

    def test_an_older_tool_knows_no_median(self) -> None:
        older = re.sub(r" p5=.*", "", PRINTED)
        assert older != PRINTED
        assert parse(older) == parse(PRINTED)

    @pytest.mark.parametrize(
        ("line", "runs"), [("count=1 curr=1700000", 1), ("count=3 curr=1700000(all same)", 3)]
    )
    def test_pictures_that_all_took_the_same_time(self, line: str, runs: int) -> None:
        text = re.sub(r"count=587 .*", line, PRINTED).replace("(avg): 1703.25", "(avg): 1.7e+06")
        assert parse(text) == Measured(runs, 1700.0, 1700.0, 0.0, 5.512, 6.5, "completely")

    def test_large_numbers(self) -> None:
        text = PRINTED.replace("Inference (avg): 1703.25", "Inference (avg): 1.70325e+06")
        measured = parse(text)
        assert measured is not None
        assert measured.mean_ms == pytest.approx(1703.25)

    @pytest.mark.parametrize(
        "text", ["", "INFO: STARTING!\n", PRINTED.replace("Inference timings", "Something")]
    )
    def test_no_measurement(self, text: str) -> None:
        assert parse(text) is None


class TestLogs:
    def test_lines_of_the_app_alone(self, phone: FakePhone, capsys: pytest.CaptureFixture[str]) -> None:
        phone.program("logcat", 'echo "$@"; echo "I/edvit ( 42): announced as phone"')
        assert main(["phone", "logs"]) == 0
        assert capsys.readouterr().out.splitlines() == [
            "-d -v time -s edvit",
            "I/edvit ( 42): announced as phone",
        ]
        assert answer(capsys, "logs")["line"].endswith("announced as phone")

    def test_a_phone_that_refuses(self, phone: FakePhone, capsys: pytest.CaptureFixture[str]) -> None:
        phone.program("logcat", "echo no permission >&2; exit 3")
        code, sentence = error(capsys, "logs")
        assert code == "phone.state"
        assert "no permission" in sentence
