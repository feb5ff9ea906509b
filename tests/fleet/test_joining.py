"""A device that cannot be called joins by dialling in: with a good token, once, and otherwise not."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from edvit_tf.device.dial import keep_joining, places
from edvit_tf.device.identity import load_or_make
from edvit_tf.device.membership import Membership
from edvit_tf.device.pairing import About, PairingService
from edvit_tf.device.store import Store
from edvit_tf.errors import LinkError, TrustError
from edvit_tf.fleet.discover import DIALLED
from edvit_tf.fleet.joining import keep_joining_open
from edvit_tf.fleet.keys import FleetKeys, make_keys
from edvit_tf.fleet.state import FleetState
from edvit_tf.fleet.tokens import Tokens
from edvit_tf.rpc.address import listen_address
from edvit_tf.rpc.certificates import fingerprint
from edvit_tf.rpc.pairing import Token
from edvit_tf.rpc.pairing_channel import join_at
from tests.fleet.processes import free_address

HOUR = timedelta(hours=1)


@asynccontextmanager
async def open_port(folder: Path, keys: FleetKeys) -> AsyncIterator[str]:
    address = free_address()
    keeping = asyncio.create_task(
        keep_joining_open(listen_address(address, "--listen"), folder, lambda: keys)
    )
    try:
        yield address
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


class Newcomer:
    """A device with a token."""

    def __init__(self, folder: Path, name: str, token: Token) -> None:
        store = Store(folder / name)
        self.identity = load_or_make(store)
        store.close()
        self.memberships: list[Membership] = []
        self.over = asyncio.Event()
        about = About(name)
        self.service = PairingService(self.identity, about, token.secret, self._joined, token=token)

    def _joined(self, membership: Membership) -> None:
        self.memberships.append(membership)
        self.over.set()

    async def join(self, address: str, seconds: float = 10.0) -> None:
        async with asyncio.timeout(seconds):
            await keep_joining(places(address, b""), self.service.pair, self.over)


def members(folder: Path) -> dict[str, str]:
    with FleetState(folder) as state:
        return {device.id: device.address for device in state.devices()}


async def test_a_device_joins_by_dialling_in_and_a_token_is_good_once(tmp_path: Path) -> None:
    keys = make_keys(tmp_path)
    token = Tokens(tmp_path).issue(fingerprint(keys.authority.certificate), life=HOUR)
    first, second = Newcomer(tmp_path, "ash", token), Newcomer(tmp_path, "beech", token)
    async with open_port(tmp_path, keys) as address:
        await first.join(address)
        assert len(first.memberships) == 1
        assert first.memberships[0].authority == keys.authority.certificate
        assert list(members(tmp_path)) == [first.identity.id]
        assert members(tmp_path)[first.identity.id].startswith(f"{DIALLED}127.0.0.1:")
        with pytest.raises(TimeoutError):
            await second.join(address, 2.5)
        with pytest.raises(LinkError, match="token is still good"):
            await join_at(address, second.service.pair)
    assert not second.memberships


@pytest.mark.fault
@pytest.mark.parametrize("wrong", ["secret", "fleet", "revoked"])
async def test_whoever_has_no_good_token_does_not_join(wrong: str, tmp_path: Path) -> None:
    keys = make_keys(tmp_path)
    tokens = Tokens(tmp_path)
    authority = fingerprint(keys.authority.certificate)
    tokens.issue(authority, life=HOUR)  # the port is open
    token = tokens.issue(authority, life=HOUR)
    if wrong == "secret":
        token = replace(token, secret=bytes(16))
    elif wrong == "fleet":
        token = replace(token, fingerprint=bytes(32))
    else:
        tokens.revoke(token.id)
    newcomer = Newcomer(tmp_path, "ash", token)
    async with open_port(tmp_path, keys) as address:
        with pytest.raises(TimeoutError):
            await newcomer.join(address, 2.0)
        with pytest.raises(LinkError if wrong == "revoked" else TrustError):
            await join_at(address, newcomer.service.pair)
    assert not newcomer.memberships
    assert members(tmp_path) == {}
    assert {issued.uses for issued in tokens.all()} == {1}


async def test_without_a_token_the_port_is_closed(tmp_path: Path) -> None:
    keys = make_keys(tmp_path)
    token = Token("00" * 6, bytes(16), bytes(32))
    async with open_port(tmp_path, keys) as address:
        await asyncio.sleep(0.2)
        with pytest.raises(LinkError, match="connect"):
            await join_at(address, Newcomer(tmp_path, "ash", token).service.pair)
