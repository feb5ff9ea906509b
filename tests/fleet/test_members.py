"""A fleet with keys, in real processes: join by token, adopt by code, and who is turned away."""

import asyncio
import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from edvit_tf.bundle.reader import Bundle
from edvit_tf.errors import EdvitError, TrustError
from edvit_tf.fleet import Announced, at_address, deploy, survey
from edvit_tf.fleet.connect import with_keys
from edvit_tf.fleet.deploy import Deployment
from edvit_tf.fleet.keys import load_keys, make_keys
from edvit_tf.fleet.state import load
from tests.fleet.fakes import picture, possible_answers
from tests.fleet.processes import DeviceProcess, command

pytestmark = pytest.mark.fleet


def edvit(*arguments: str | Path, status: int = 0) -> Any:
    done = subprocess.run(
        command(*arguments, "--json"), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == status, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fleet")
    made = edvit("fleet", "init", "--state", folder)
    assert len(made["fingerprint"]) == 64
    return folder


@pytest.fixture(scope="module")
def members(
    fleet: Path, bundle: Bundle, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[DeviceProcess]]:
    """Devices that waited with one counted token, and were taken by `fleet deploy`."""
    folder = tmp_path_factory.mktemp("devices")
    names = [f"oak-{number}" for number in range(len(bundle.manifest.submodels))]
    token = edvit("fleet", "token", "--state", fleet, "--uses", str(len(names)))["token"]
    options = ("--join", token)
    with ExitStack() as exits:
        devices = [DeviceProcess(name, folder, options=options) for name in names]
        for device in devices:
            exits.callback(device.end)
            device.begin()
        for device in devices:
            assert device.said()["waiting"]["code"] == ""
        placed = edvit("fleet", "deploy", bundle.path, "--state", fleet, "--timeout", "6")
        for device in devices:
            device.wait_ready()
        assert {row["device"] for row in placed["placement"]} <= {device.id for device in devices}
        yield devices


def test_a_fleet_answers_over_mutual_tls_with_a_signed_bundle(
    fleet: Path, members: list[DeviceProcess], bundle: Bundle, tmp_path: Path
) -> None:
    assert all(device.running for device in members)
    image = picture(bundle)
    path = tmp_path / "picture.png"
    Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(path)
    answer = edvit("infer", path, "--state", fleet)
    assert answer["complete"]
    assert answer["probabilities"] in possible_answers(bundle, image)
    rows = edvit("fleet", "status", "--state", fleet)
    assert {row["state"] for row in rows} == {"up"}
    assert not bundle.has_signature, "the exported bundle is left as it was"


def test_strangers_are_turned_away(members: list[DeviceProcess], bundle: Bundle, tmp_path: Path) -> None:
    where = at_address(members[0].address)
    stranger = with_keys(make_keys(tmp_path))
    (row,) = asyncio.run(survey([where], connect=stranger))
    assert row.state == "refused"
    assert row.submodels == ()
    with pytest.raises(EdvitError):
        asyncio.run(deploy(bundle, [where], connect=stranger))


def test_what_the_owner_did_not_sign_is_not_installed(
    fleet: Path, members: list[DeviceProcess], newer: Bundle
) -> None:
    async def work() -> Deployment:
        devices = [Announced(device.address, device.id, device.name) for device in members]
        return await deploy(newer, devices, connect=with_keys(load_keys(fleet)))

    with pytest.raises(EdvitError, match="not signed"):
        asyncio.run(work())


def test_a_member_stays_one_and_needs_its_token_no_more(fleet: Path, members: list[DeviceProcess]) -> None:
    device = members[0]
    before = device.id
    device.kill()
    device.start()
    assert device.id == before
    (row,) = asyncio.run(survey([at_address(device.address)], connect=with_keys(load_keys(fleet))))
    assert (row.state, row.id) == ("up", before)


@pytest.mark.fault
def test_an_impostor_that_announces_a_members_id_gets_nothing(
    fleet: Path, members: list[DeviceProcess]
) -> None:
    posing = Announced(members[1].address, members[0].id, members[0].name)
    (row,) = asyncio.run(survey([posing], connect=with_keys(load_keys(fleet))))
    assert row.state == "refused"
    assert "not that device" in row.reason


@pytest.mark.fault
def test_only_the_owners_decision_goes_back_to_an_older_version(
    fleet: Path, members: list[DeviceProcess], bundle: Bundle, newer: Bundle
) -> None:
    addresses = [part for device in members for part in ("--address", device.address)]
    after = edvit("fleet", "deploy", newer.path, "--state", fleet, *addresses)
    assert after["bundle_version"] == newer.manifest.version
    refused = edvit("fleet", "deploy", bundle.path, "--state", fleet, *addresses, status=1)
    assert "is older than version" in refused["error"]["message"]
    back = edvit("fleet", "rollback", bundle.path, "--state", fleet, *addresses)
    assert back["bundle_version"] == bundle.manifest.version
    assert load(fleet)[0].rollback, "a device that comes back later is shown the decision, too"
    rows = edvit("fleet", "status", "--state", fleet)
    assert {row["bundle_version"] for row in rows} == {bundle.manifest.version}


def test_a_used_token_takes_nobody_else(fleet: Path, members: list[DeviceProcess]) -> None:
    del members
    (row,) = edvit("fleet", "token", "--list", "--state", fleet)
    assert row["uses"] == 0


def test_adopting_by_code(fleet: Path, tmp_path: Path) -> None:
    device = DeviceProcess("elm", tmp_path)
    try:
        device.begin()
        waiting = device.said()["waiting"]
        # Who has no keys may look, too.
        for state in (fleet, tmp_path / "nowhere"):
            (row,) = [
                row for row in edvit("fleet", "discover", "--state", state) if row["id"] == waiting["id"]
            ]
            assert row["state"] == "waiting"
        wrong = edvit("fleet", "adopt", "elm", "--code", "0000-0000-0000", "--state", fleet, status=1)
        assert "code is wrong" in wrong["error"]["message"]
        adopted = edvit("fleet", "adopt", "elm", "--code", waiting["code"], "--state", fleet)
        assert adopted == {"id": waiting["id"], "name": "elm"}
        device.wait_ready()
        (row,) = asyncio.run(survey([at_address(device.address)], connect=with_keys(load_keys(fleet))))
        assert (row.state, row.id) == ("up", waiting["id"])
    finally:
        device.end()


def test_keys_of_nobody(tmp_path: Path) -> None:
    with pytest.raises(TrustError, match="fleet init"):
        load_keys(tmp_path)
