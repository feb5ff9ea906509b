"""Certificates are renewed before they end, without a dropped call, and named when they cannot be."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from edvit_tf.device.dial import keep_dialled, places
from edvit_tf.device.identity import load_or_make
from edvit_tf.device.membership import Membership, Shown, load_membership, save_membership
from edvit_tf.device.store import Store
from edvit_tf.errors import LinkError, TrustError
from edvit_tf.fleet import Announced
from edvit_tf.fleet.inward import Inward
from edvit_tf.fleet.keys import FleetKeys, make_keys
from edvit_tf.fleet.renew import renew
from edvit_tf.rpc.address import Address
from edvit_tf.rpc.certificates import issue_for_device, parse_certificate, utc_now
from edvit_tf.rpc.channel import GrpcLink, add_device, serve_grpc
from edvit_tf.rpc.edvit_pb2 import HelloRequest
from edvit_tf.rpc.inward import serve_inward
from edvit_tf.rpc.tunnelled import TunnelServer
from tests.rpc.handlers import Echo


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def keys(tmp_path: Path) -> FleetKeys:
    return make_keys(tmp_path / "fleet")


def member(store: Store, keys: FleetKeys, life: timedelta) -> tuple[str, Shown]:
    identity = load_or_make(store)
    certificate = issue_for_device(keys.authority, identity.key.public_key(), utc_now(), life)
    raw = keys.bundle_key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    membership = Membership(keys.authority.certificate, certificate, raw)
    save_membership(store, membership)
    return identity.id, Shown(store, identity, membership)


def ends(certificate: x509.Certificate) -> float:
    return (certificate.not_valid_after_utc - utc_now()) / timedelta(days=1)


@pytest.mark.fault
async def test_a_certificate_is_renewed_while_calls_go_on(store: Store, keys: FleetKeys) -> None:
    device_id, shown = member(store, keys, timedelta(days=80))
    server = await serve_grpc(Echo(device_id=device_id), "127.0.0.1", 0, shown.credentials, shown.renew)
    device = Announced(f"127.0.0.1:{server.port}", device_id, "kitchen")
    link = GrpcLink(device.address, keys.credentials, device_id)
    await link.hello(HelloRequest(), timeout=5)
    assert await renew([device], keys) == []
    for _ in range(50):
        await link.hello(HelloRequest(), timeout=5)
    kept = load_membership(store)
    assert kept is not None
    assert ends(kept.certificate) > 364, "written down"
    again = GrpcLink(device.address, keys.credentials, device_id)
    assert ends(parse_certificate(await again.certificate(timeout=5))) > 364, "and shown"
    for each in (link, again):
        await each.close()
    await server.stop(0)


@pytest.mark.fault
async def test_a_device_that_dialled_in_is_renewed_over_its_own_connection(
    store: Store, keys: FleetKeys
) -> None:
    device_id, shown = member(store, keys, timedelta(days=80))
    answering = TunnelServer()
    add_device(answering, Echo(device_id=device_id), shown.renew)
    inward = Inward()
    inward.admit([device_id])
    server = await serve_inward(inward.welcome, Address("127.0.0.1", 0), lambda: keys.credentials)
    where = places(f"127.0.0.1:{server.port}", b"")
    dialling = asyncio.create_task(keep_dialled(where, shown.credentials, answering.answer))
    async with asyncio.timeout(10):
        while not inward.present():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    (device,) = inward.present()
    assert await renew([device], keys, connect=inward.connect) == []
    link = inward.connect(device.address, device_id)
    assert ends(parse_certificate(await link.certificate(timeout=5))) > 364
    inward.admit([])
    inward.admit([device_id])
    async with asyncio.timeout(10):
        while [device] == inward.present() or not inward.present():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    kept = load_membership(store)
    assert kept is not None
    assert ends(kept.certificate) > 364, "and the next connection is made with it"
    dialling.cancel()
    await asyncio.gather(dialling, return_exceptions=True)
    await server.stop(0)


async def test_one_that_cannot_be_renewed_is_warned_of_thirty_days_before(
    store: Store, keys: FleetKeys
) -> None:
    device_id, shown = member(store, keys, timedelta(days=29))

    def stubborn(newer: bytes) -> bytes:
        if newer:
            raise LinkError("the disk is full")
        return shown.renew(b"")

    server = await serve_grpc(Echo(device_id=device_id), "127.0.0.1", 0, shown.credentials, stubborn)
    device = Announced(f"127.0.0.1:{server.port}", device_id, "kitchen")
    (warning,) = await renew([device], keys)
    assert "the certificate of kitchen ends on" in warning
    await server.stop(0)
    assert await renew([device], keys) == [], "one that is not there is the survey's business"


def test_only_its_own_fleets_certificate_for_its_own_key_is_taken(
    store: Store, keys: FleetKeys, tmp_path: Path
) -> None:
    _, shown = member(store, keys, timedelta(days=80))
    other = make_keys(tmp_path / "other")
    key = load_or_make(store).key.public_key()
    stranger = issue_for_device(other.authority, key, utc_now())
    another_key = issue_for_device(keys.authority, other.authority.key.public_key(), utc_now())
    shorter = issue_for_device(keys.authority, key, utc_now(), timedelta(days=1))
    before = shown.renew(b"")
    for wrong in (stranger, another_key, shorter):
        with pytest.raises(TrustError):
            shown.renew(wrong.public_bytes(Encoding.DER))
    with pytest.raises(TrustError):
        shown.renew(b"x")
    assert shown.renew(b"") == before
