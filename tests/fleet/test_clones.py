"""A copied key: named and refused, while an impostor, a second address or a move is not taken for one."""

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest

from edvit_tf.bundle.reader import Bundle
from edvit_tf.errors import DeviceError, EdvitError, LinkError
from edvit_tf.fleet import Announced, State, at_address, deploy, survey
from edvit_tf.fleet.clones import refuse_clones
from edvit_tf.rpc.edvit_pb2 import HelloReply
from tests.fleet.clock import now, run
from tests.fleet.fakes import FakeDevice, Network, device_id
from tests.fleet.processes import device_fleet, elsewhere, started
from tests.fleet.test_member import until, watched
from tests.fleet.test_processes import edvit

pytestmark = pytest.mark.fault


def hello(number: int, instance: bytes) -> HelloReply:
    return HelloReply(id=device_id(number), name=f"d{number}", instance=instance)


def test_only_one_key_in_two_processes_is_refused() -> None:
    answers: list[HelloReply | EdvitError] = [
        hello(1, b"a"), hello(1, b"b"), hello(2, b"c"), hello(2, b"c"), LinkError("gone"), hello(3, b""),
    ]  # fmt: skip
    judged = refuse_clones([Announced(str(number)) for number in range(6)], answers)
    assert judged[2:] == answers[2:]
    for one in judged[:2]:
        assert isinstance(one, DeviceError)
        assert one.code == "device.cloned"
        assert "d1" in one.message
        assert "used at 0 and 1 at once" in one.message


class Twins(Network):
    """A device at "0", and at "1" whatever announces itself as that device."""

    def __init__(self, bundle: Bundle, other: bytes) -> None:
        super().__init__(FakeDevice(0, bundle), FakeDevice(0, bundle))
        self.device, self.other = self.devices["0"], self.devices["1"]
        self.device.instance, self.other.instance = b"first", other

    @property
    def elsewhere(self) -> Announced:
        return Announced("1", self.device.id, self.device.name)


def test_a_copy_that_is_announced_takes_the_device_out_until_it_is_gone(bundle: Bundle) -> None:
    async def story() -> None:
        network = Twins(bundle, b"second")
        async with watched(network) as member:
            await until(member, State.UP)
            member.seen(network.elsewhere)
            assert await until(member, State.REFUSED) <= 6.0
            assert "used at 0 and 1 at once" in member.reason
            assert member.link is None
            start = now()
            while now() - start < 120:
                await asyncio.sleep(0.5)
                assert member.state is State.REFUSED, "neither of the two is asked in between"
            network.other.alive = False
            assert await until(member, State.UP) <= 60.0
            assert member.reason == ""

    run(story())


@pytest.mark.parametrize("what", ["impostor", "second address", "move"])
def test_what_is_no_copy_costs_the_device_nothing(bundle: Bundle, what: str) -> None:
    async def story() -> None:
        network = Twins(bundle, b"first" if what == "second address" else b"second")
        if what == "impostor":
            network.other.alive = False  # the handshake fails, whoever it is
        async with watched(network) as member:
            await until(member, State.UP)
            if what == "move":
                network.device.alive = False
            member.seen(network.elsewhere)
            await asyncio.sleep(60)
            assert (member.state, member.reason) == (State.UP, "")
            assert member.status().address == ("1" if what == "move" else "0")

    run(story())


@pytest.mark.fleet
def test_a_copied_store_is_named_and_a_new_key_is_one_command_away(bundle: Bundle, tmp_path: Path) -> None:
    with device_fleet(["oak", "elm"], tmp_path / "real") as made:
        pass
    shutil.copytree(made.devices[0].store, tmp_path / "copied" / "elm")
    (tmp_path / "copied" / "elm" / "lock").unlink(missing_ok=True)
    oak, elm = map(elsewhere, made.devices)
    copy = type(oak)("elm", tmp_path / "copied")
    with started(oak, elm, copy) as addresses:
        rows = discovered(made.folder, addresses)
        assert {row["name"] for row in rows} == {"oak", "elm"}, "two names, three processes"
        states = {row["address"]: row["state"] for row in rows}
        assert states == {oak.address: "refused", elm.address: "up", copy.address: "refused"}
        assert all("is a copy" in row["reason"] for row in rows if row["state"] == "refused")
        work = deploy(
            made.sign(bundle), [at_address(oak.address), at_address(copy.address)], connect=made.connect
        )
        with pytest.raises(EdvitError, match="is used at"):
            asyncio.run(work)
        oak.end()
        status, _ = edvit("device", "leave", "--new-key", "--store", oak.store)
        assert status == 0
        oak.begin()
        waiting: Any = oak.said()["waiting"]
        assert waiting["id"] != elm.id
        where = f"{waiting['address']}:{waiting['port']}"
        status, (adopted,) = edvit(
            "fleet", "adopt", "--state", made.folder, "--address", where, "--code", waiting["code"]
        )
        assert status == 0
        oak.wait_ready()
        (row,) = asyncio.run(survey([at_address(oak.address)], connect=made.connect))
        assert (row.state, row.id) == ("up", waiting["id"])
        assert isinstance(adopted, dict)
        assert adopted["id"] == waiting["id"]


def discovered(state: Path, addresses: list[str]) -> list[dict[str, str]]:
    """The rows of `fleet discover` for these addresses, found by zeroconf."""
    status, (rows,) = edvit("fleet", "discover", "--timeout", "6", "--state", state)
    assert status == 0
    assert isinstance(rows, list)
    return [row for row in rows if row["address"] in addresses]
