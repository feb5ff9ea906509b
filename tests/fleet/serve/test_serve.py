"""`edvit-tf serve` as a process over real devices: HTTP, gRPC, a deploy under way, signals, and only one."""

import asyncio
import json
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from edvit_tf.bundle.reader import Bundle
from edvit_tf.bundle.writer import write_manifest
from edvit_tf.errors import BusyError, DataError, LinkError
from edvit_tf.fleet.keys import make_keys
from edvit_tf.rpc.aggregator_channel import AggregatorLink
from edvit_tf.rpc.certificates import issue_for_device, utc_now
from tests.fleet.fakes import picture, possible_answers
from tests.fleet.processes import ThrowAwayFleet, deployed_fleet
from tests.fleet.serve.asked import png
from tests.fleet.serve.process import Serving, edvit, serving, until

pytestmark = [pytest.mark.fleet, pytest.mark.long]

REJOIN_SECONDS = 10.0


@pytest.fixture(scope="module", params=["out", "in"])
def made(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, bundle: Bundle
) -> Iterator[ThrowAwayFleet]:
    """Three devices that hold a bundle for two; once they are called, and once they dial in."""
    names = ["ash", "beech", "cedar"]
    with deployed_fleet(names, tmp_path_factory.mktemp("devices"), bundle, request.param) as fleet:
        yield fleet


@contextmanager
def answering(made: ThrowAwayFleet, log: Path, *options: str) -> Iterator[Serving]:
    """An aggregator, when every device answers: those that dial in take some seconds."""
    with serving(made.folder, log, *options, *made.listening) as it:
        until(lambda: everyone_answers(it), REJOIN_SECONDS)
        yield it


def everyone_answers(it: Serving) -> bool:
    answering: int = json.loads(it.ask("GET", "/healthz")[1])["devices_answering"]
    return answering == 3


def test_pictures_are_answered_by_every_way_in(made: ThrowAwayFleet, bundle: Bundle, tmp_path: Path) -> None:
    data, possible = png(bundle), possible_answers(bundle, picture(bundle))
    with answering(made, tmp_path / "log") as it:
        answer = it.classify(data)
        assert answer["complete"]
        assert answer["probabilities"] in possible
        assert {part["name"] for part in answer["devices"]} <= {"ash", "beech", "cedar"}
        assert json.loads(it.ask("GET", "/healthz")[1])["status"] == "ok"
        assert b"edvit_requests_total" in it.ask("GET", "/metrics")[1]

        path = tmp_path / "picture.png"
        path.write_bytes(data)
        status, (said,) = edvit("infer", path, "--state", made.folder)
        assert status == 0
        assert said["probabilities"] in possible
        assert b'way="grpc"' in it.ask("GET", "/metrics")[1], "infer asked the aggregator that runs"
        path.write_bytes(b"no picture")
        status, (said,) = edvit("infer", path, "--state", made.folder)
        assert status == 1
        assert "not a picture" in said["error"]["message"]

        status, (said,) = edvit("serve", "--state", made.folder, "--http", "127.0.0.1:0")
        assert (status, said["error"]["code"]) == (2, "state.held")
        assert f"process {it.process.pid} " in said["error"]["message"]
        assert it.stop() == 0
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [line["message"] for line in lines if line["logger"].endswith("service")] == ["ready", "stopping"]
    assert {line["request_id"] for line in lines if line["message"] == "answered"} >= {answer["request_id"]}


async def test_grpc_says_busy_and_what_is_no_picture_and_serves_owners_alone(
    made: ThrowAwayFleet, bundle: Bundle, tmp_path: Path
) -> None:
    with answering(made, tmp_path / "log", "--in-flight", "1") as it:
        link = AggregatorLink(it.ready["grpc"], made.keys.credentials)
        reply = await link.classify(png(bundle), seconds=1.5, timeout=5)
        assert list(reply.probabilities) in possible_answers(bundle, picture(bundle))
        with pytest.raises(DataError, match="not a picture"):
            await link.classify(b"no picture", seconds=None, timeout=5)
        several = (link.classify(png(bundle), seconds=None, timeout=5) for _ in range(30))
        said = await asyncio.gather(*several, return_exceptions=True)
        assert any(isinstance(one, BusyError) for one in said)
        assert not [one for one in said if isinstance(one, Exception) and not isinstance(one, BusyError)]
        await link.close()
        theirs = ec.generate_private_key(ec.SECP256R1())
        shown = issue_for_device(made.keys.authority, theirs.public_key(), utc_now())
        device = replace(
            made.keys.credentials,
            key=theirs.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
            certificate=shown.public_bytes(Encoding.PEM),
        )
        for other in device, make_keys(tmp_path / "another fleet").credentials:
            stranger = AggregatorLink(it.ready["grpc"], other)
            with pytest.raises(LinkError):
                await stranger.classify(png(bundle), seconds=None, timeout=5)
            await stranger.close()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_what_is_in_flight_is_answered_before_it_ends(
    made: ThrowAwayFleet, bundle: Bundle, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    device = made.devices[0]
    with answering(made, tmp_path / "log") as it:
        assert it.classify(png(bundle))["complete"]
        got: list[Any] = []
        frozen = [one for one in made.devices if one is not device]
        for one in made.devices:
            one.send(signal.SIGSTOP)
        try:
            asking = threading.Thread(target=lambda: got.append(it.ask("POST", "/v1/classify", png(bundle))))
            asking.start()
            time.sleep(0.5)
            it.process.send_signal(number)
            time.sleep(0.5)
        finally:
            for one in (device, *frozen):
                one.send(signal.SIGCONT)
        asking.join()
        assert got[0][0] == 200
        assert json.loads(got[0][1])["complete"]
        assert it.process.wait(10) == status


def test_a_new_version_is_deployed_while_it_answers_and_no_answer_is_lost_or_mixed(
    made: ThrowAwayFleet, bundle: Bundle, tmp_path: Path
) -> None:
    folder = tmp_path / "newer"
    shutil.copytree(bundle.path, folder)
    write_manifest(folder, replace(bundle.manifest, version=bundle.manifest.version + 1))
    possible = possible_answers(bundle, picture(bundle))
    data = png(bundle)
    with answering(made, tmp_path / "log") as it:
        answers: list[Any] = []
        over = threading.Event()

        def ask() -> None:
            while not over.is_set():
                answers.append(it.classify(data))

        asking = threading.Thread(target=ask)
        asking.start()
        time.sleep(0.5)
        addresses = [f"--address={device.address}" for device in made.devices if not made.dial]
        status, said = edvit("fleet", "deploy", folder, "--state", made.folder, *addresses)
        assert status == 0, said
        time.sleep(1.0)
        over.set()
        asking.join()
        assert it.stop() == 0
    versions = [answer["bundle_version"] for answer in answers]
    assert versions == sorted(versions)
    assert set(versions) == {bundle.manifest.version, bundle.manifest.version + 1}
    assert all(answer["complete"] for answer in answers)
    assert all(answer["probabilities"] in possible for answer in answers)


def test_it_deploys_the_bundle_that_it_is_given(made: ThrowAwayFleet, bundle: Bundle, tmp_path: Path) -> None:
    folder = tmp_path / "newest"
    shutil.copytree(bundle.path, folder)
    write_manifest(folder, replace(bundle.manifest, version=bundle.manifest.version + 2))
    with serving(made.folder, tmp_path / "log", str(folder), *made.listening) as it:
        assert it.ready["bundle_version"] == bundle.manifest.version + 2, "the deploy's own line"
        assert it.process.stdout is not None
        it.ready = json.loads(it.process.stdout.readline())
        until(lambda: everyone_answers(it), REJOIN_SECONDS)
        answer = it.classify(png(bundle))
        assert answer["bundle_version"] == bundle.manifest.version + 2


def test_it_goes_back_to_an_older_version_while_it_answers(
    made: ThrowAwayFleet, bundle: Bundle, tmp_path: Path
) -> None:
    data, possible = png(bundle), possible_answers(bundle, picture(bundle))
    with answering(made, tmp_path / "log") as it:
        assert it.classify(data)["bundle_version"] > bundle.manifest.version
        addresses = [f"--address={device.address}" for device in made.devices if not made.dial]
        status, said = edvit("fleet", "rollback", bundle.path, "--state", made.folder, *addresses)
        assert status == 0, said
        answer = it.classify(data)
        assert (answer["bundle_version"], answer["complete"]) == (bundle.manifest.version, True)
        assert answer["probabilities"] in possible
