"""Measuring: a sub-model is proved and timed, and the device is as it was."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from edvit_tf.bundle.codec import serialise
from edvit_tf.bundle.reader import Bundle
from edvit_tf.bundle.signature import sign_manifest
from edvit_tf.device.served import Shelf
from edvit_tf.device.service import DeviceService
from edvit_tf.device.store import Store
from edvit_tf.rpc.edvit_pb2 import InstallReply, InstallRequest
from tests.device.test_install import OWNER, RUNTIME, Spoil, blobs, device, install, requests, said


async def measure(service: DeviceService, bundle: Bundle, *, spoil: Spoil = list) -> InstallReply:
    """The last reply."""
    submodel = bundle.manifest.submodels[0]

    async def stream() -> AsyncIterator[InstallRequest]:
        for request in spoil(requests(bundle, submodel.id, submodel.variant())):
            yield request

    return [reply async for reply in service.measure(stream())][-1]


def scratch(store: Store) -> list[Path]:
    return list((store.path / "scratch" / "blobs").iterdir())


async def test_it_says_how_long_a_picture_takes_and_keeps_nothing(store: Store, bundle: Bundle) -> None:
    service = device(store)
    reply = await measure(service, bundle)
    assert (reply.step, reply.reason) == (InstallReply.MEASURED, "")
    assert reply.microseconds > 0
    hello = await said(service)
    assert (hello.bundle, list(hello.generations)) == ("", [])
    assert blobs(store) == set()
    assert scratch(store) == []


async def test_what_serves_serves_on_and_may_be_newer(store: Store, bundle: Bundle, newer: Bundle) -> None:
    service = device(store)
    await install(service, newer)
    before, kept = await said(service), blobs(store)
    assert (await measure(service, bundle)).step == InstallReply.MEASURED
    assert await said(service) == before
    assert blobs(store) == kept
    service.close()


async def test_what_does_not_fit_beside_what_serves_is_refused(store: Store, bundle: Bundle) -> None:
    needed = bundle.manifest.submodels[0].variant().memory_bytes
    service = device(store, memory_bytes=needed * 3 // 2)
    assert (await measure(service, bundle)).step == InstallReply.MEASURED
    await install(service, bundle)
    reply = await measure(service, bundle)
    assert (reply.step, reply.code) == (InstallReply.REFUSED, "device.memory")
    assert [holding.serving for holding in (await said(service)).holdings] == [True]
    service.close()


async def test_only_what_the_owner_signed_and_what_has_not_expired(store: Store, bundle: Bundle) -> None:
    service = device(store)

    def unsigned(parts: list[InstallRequest]) -> list[InstallRequest]:
        parts[0].header.signature = b""
        return parts

    def expired(parts: list[InstallRequest]) -> list[InstallRequest]:
        data = serialise(replace(bundle.manifest, expires="2020-01-01T00:00:00Z"))
        parts[0].header.manifest, parts[0].header.signature = data, sign_manifest(OWNER, data)
        return parts

    codes = [(await measure(service, bundle, spoil=spoil)).code for spoil in (unsigned, expired)]
    assert codes == ["trust.unsigned", "trust.expired"]


async def test_wrong_answers_are_no_measurement(store: Store, bundle: Bundle) -> None:
    other = replace(RUNTIME, verify=lambda _, vector: RUNTIME.verify(*wrong(vector)))
    wrong_file = bundle.file(bundle.manifest.submodels[-1].variant().file)

    def wrong(vector: Path) -> tuple[Path, Path]:
        return wrong_file, vector

    reply = await measure(device(store, runtime=other), bundle)
    assert (reply.step, reply.code) == (InstallReply.REFUSED, "device.vector")
    assert scratch(store) == []


async def test_it_gives_way_to_what_is_to_be_installed(store: Store, bundle: Bundle) -> None:
    service = device(store)
    submodel = bundle.manifest.submodels[0]
    begun, goes_on = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[InstallRequest]:
        for part in requests(bundle, submodel.id, submodel.variant()):
            yield part
            begun.set()
            await goes_on.wait()

    async def last() -> InstallReply:
        return [reply async for reply in service.measure(slow())][-1]

    measuring = asyncio.create_task(last())
    await begun.wait()
    assert (await measure(service, bundle)).code == "device.busy", "one at a time"

    steps = []
    async for reply in service.install(aiter_of(requests(bundle, submodel.id, submodel.variant()))):
        steps.append(reply.step)
        goes_on.set()
        await asyncio.sleep(0)
    reply = await measuring
    assert (reply.step, reply.code) == (InstallReply.REFUSED, "device.busy")
    assert steps[-1] == InstallReply.SERVING
    assert scratch(store) == []
    service.close()


async def aiter_of(parts: list[InstallRequest]) -> AsyncIterator[InstallRequest]:
    for part in parts:
        yield part


async def test_whoever_gives_up_leaves_nothing(store: Store, bundle: Bundle) -> None:
    service = device(store)
    submodel = bundle.manifest.submodels[0]
    replies = service.measure(aiter_of(requests(bundle, submodel.id, submodel.variant())[:2]))
    assert (await anext(replies)).step == InstallReply.RECEIVING
    assert (await anext(replies)).received_bytes > 0
    await replies.aclose()
    assert scratch(store) == []
    assert (await measure(service, bundle)).step == InstallReply.MEASURED


def test_what_a_power_cut_left_is_gone_at_the_next_start(tmp_path: Path) -> None:
    left = tmp_path / "scratch" / "blobs" / "0123"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    Store(tmp_path).close()
    assert not left.exists()


async def test_a_device_that_takes_nothing_measures_nothing(bundle: Bundle, store: Store) -> None:
    facts = device(store).facts
    assert (await measure(DeviceService(facts, Shelf()), bundle)).code == "device.fixed"


@pytest.mark.parametrize("first", [InstallRequest(), InstallRequest(chunk=b"x")])
async def test_it_begins_with_its_header(store: Store, first: InstallRequest) -> None:
    replies = [reply async for reply in device(store).measure(aiter_of([first]))]
    assert [reply.code for reply in replies] == ["device.stream"]
