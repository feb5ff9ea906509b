"""Letting go of sub-models that others have taken over."""

import hashlib
from collections.abc import AsyncIterator

import pytest

from edvit_tf.bundle.reader import Bundle
from edvit_tf.device.service import DeviceService
from edvit_tf.device.store import Store
from edvit_tf.errors import DeviceError
from edvit_tf.rpc.edvit_pb2 import InstallReply, InstallRequest, Release
from tests.device.test_install import blobs, device, install, question, said


async def release(service: DeviceService, bundle: Bundle, *submodels: str) -> InstallReply:
    async def stream() -> AsyncIterator[InstallRequest]:
        manifest = hashlib.sha256(bundle.manifest_bytes).digest()
        yield InstallRequest(release=Release(manifest=manifest, submodels=submodels))

    (reply,) = [reply async for reply in service.install(stream())]
    return reply


async def test_what_is_let_go_of_is_gone_and_the_rest_serves(store: Store, bundle: Bundle) -> None:
    service = device(store)
    await install(service, bundle, 0)
    alone = blobs(store)
    await install(service, bundle, 1)
    first, second = (submodel.id for submodel in bundle.manifest.submodels[:2])
    assert (await release(service, bundle, second)).step == InstallReply.SERVING
    assert [holding.submodel for holding in (await said(service)).holdings] == [first]
    assert blobs(store) == alone
    await service.infer(question(bundle, first))
    with pytest.raises(DeviceError, match="not on this device"):
        await service.infer(question(bundle, second))
    assert (await release(service, bundle, second)).step == InstallReply.SERVING, "asked twice"


async def test_a_device_without_any_knows_its_bundle_and_takes_them_again(
    store: Store, bundle: Bundle
) -> None:
    service = device(store)
    await install(service, bundle, 0)
    await release(service, bundle, bundle.manifest.submodels[0].id)
    hello = await said(service)
    assert (hello.bundle, hello.bundle_version) == (bundle.manifest.name, bundle.manifest.version)
    assert not hello.holdings
    assert (await install(service, bundle, 0))[-1].step == InstallReply.SERVING
    await service.infer(question(bundle))


async def test_a_bundle_that_is_not_here_is_refused(store: Store, bundle: Bundle, newer: Bundle) -> None:
    service = device(store)
    await install(service, bundle, 0)
    reply = await release(service, newer, bundle.manifest.submodels[0].id)
    assert (reply.step, reply.code) == (InstallReply.REFUSED, "device.version")
    await service.infer(question(bundle))
