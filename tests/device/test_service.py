"""What a device refuses to run, and that one picture does not keep another waiting for ever."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable

import numpy as np
import pytest

from edvit_tf.bundle.reader import Bundle
from edvit_tf.device.engine import Engine
from edvit_tf.device.local import local_device
from edvit_tf.errors import DeviceError, ModelError
from edvit_tf.rpc.edvit_pb2 import InferRequest, InstallReply, InstallRequest
from edvit_tf.runtime.interpreter import Output
from tests.device.test_install import question


def other_bundle(request: InferRequest) -> None:
    request.bundle = "another"


def other_version(request: InferRequest) -> None:
    request.bundle_version += 1


def unknown(request: InferRequest) -> None:
    request.submodels[0] = "submodel-99"


def codec(request: InferRequest) -> None:
    request.picture.codec = "jpeg"


def turned(request: InferRequest) -> None:
    request.picture.height += 1


def coloured(request: InferRequest) -> None:
    request.picture.channels = 4


def cut(request: InferRequest) -> None:
    request.picture.data = request.picture.data[:-1]


def huge(request: InferRequest) -> None:
    request.picture.data = bytes(10**6)


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (other_bundle, "device.version"),
        (other_version, "device.version"),
        (unknown, "device.submodel"),
        (codec, "device.picture"),
        (turned, "device.picture"),
        (coloured, "device.picture"),
        (cut, "device.picture"),
        (huge, "device.picture"),
    ],
)
async def test_a_wrong_request_is_refused_with_its_code(
    bundle: Bundle, spoil: Callable[[InferRequest], None], code: str
) -> None:
    service = local_device(bundle)
    request = question(bundle)
    await service.infer(request)
    spoil(request)
    with pytest.raises(DeviceError) as caught:
        await service.infer(request)
    assert caught.value.code == code
    service.close()


async def test_a_local_device_holds_every_sub_model_and_takes_none(bundle: Bundle) -> None:
    service = local_device(bundle)
    ids = [submodel.id for submodel in bundle.manifest.submodels]
    reply = await service.infer(question(bundle, *ids))
    assert [output.submodel for output in reply.outputs] == ids

    async def stream() -> AsyncIterator[InstallRequest]:
        yield InstallRequest(chunk=b"x")

    assert [answer.step async for answer in service.install(stream())] == [InstallReply.REFUSED]
    service.close()


async def test_a_picture_that_nobody_waits_for_is_not_run() -> None:
    release = threading.Event()
    runs: list[int] = []

    class Slow:
        def run(self, image: np.ndarray) -> Output:
            runs.append(int(image[0, 0, 0]))
            release.wait(10)
            return Output(np.zeros(1, np.float32), np.zeros(1, np.float32))

    engine = Engine(Slow())
    images = [np.full((1, 1, 1), number, np.uint8) for number in range(3)]
    answers = [engine.run(image) for image in images]
    await asyncio.sleep(0.05)
    answers[1].cancel()
    await asyncio.sleep(0)
    release.set()
    await asyncio.gather(*answers, return_exceptions=True)
    assert runs == [0, 2]
    engine.close()


async def test_an_engine_answers_what_it_has_been_given_then_ends_and_passes_on_what_goes_wrong() -> None:
    class Odd:
        def run(self, image: np.ndarray) -> Output:
            if image[0, 0, 0] % 2:
                return Output(np.zeros(1, np.float32), np.zeros(1, np.float32))
            raise ModelError("it is even")

    engine = Engine(Odd())
    answers = [engine.run(np.full((1, 1, 1), number, np.uint8)) for number in range(4)]
    engine.close(wait=True)
    said = await asyncio.gather(*answers, return_exceptions=True)
    assert [isinstance(one, ModelError) for one in said] == [True, False, True, False]
