"""One picture to every device: what comes by the deadline, and what is left out."""

import asyncio
import hashlib
import math
from collections.abc import Callable

import numpy as np
import pytest

from edvit_tf.bundle.reader import Bundle
from edvit_tf.errors import DeadlineError, DeviceError, EdvitError, LinkError, UsageError
from edvit_tf.fleet.answer import DeviceReply, fused_answer, weak_classes
from edvit_tf.fleet.dispatch import Route, dispatch
from edvit_tf.fleet.wire import DEFAULT_WIRE, Encoded, Wire
from edvit_tf.rpc.edvit_pb2 import InferReply
from tests.fleet.clock import now, run
from tests.fleet.fakes import FakeDevice, Network, fleet_of, picture

Failures = list[tuple[str, EdvitError]]


def ask(
    bundle: Bundle, network: Network, *, deadline: float = 2.0
) -> tuple[list[DeviceReply], Failures, float]:
    """The replies, the failures that were reported, and the seconds it took on the clock that jumps."""
    failures: Failures = []

    async def work() -> list[DeviceReply]:
        return await dispatch(
            bundle.manifest,
            [
                Route(device.id, device.name, network.connect(address), tuple(device.served))
                for address, device in network.devices.items()
            ],
            Encoded(picture(bundle)),
            digest=hashlib.sha256(bundle.manifest_bytes).digest(),
            deadline=deadline,
            on_reply=lambda route, reply: (
                failures.append((route.device, reply.error)) if reply.error else None
            ),
        )

    async def timed() -> tuple[list[DeviceReply], Failures, float]:
        start = now()
        replies = await work()
        return replies, failures, now() - start

    return run(timed())


def test_everyone_is_asked_at_once_with_the_same_picture(bundle: Bundle) -> None:
    network, _ = fleet_of(bundle)
    for device in network.devices.values():
        device.delay = 1.0
    replies, failures, seconds = ask(bundle, network)
    assert seconds == pytest.approx(1.0)
    assert not failures
    asked = [device.asked[0] for device in network.devices.values()]
    assert len({request.picture.data for request in asked}) == 1
    assert len({request.request_id for request in asked}) == 1
    for reply, request in zip(replies, asked, strict=True):
        assert set(reply.features) == set(reply.submodels)
        assert reply.sent_bytes == request.ByteSize() > len(request.picture.data)
        assert reply.received_bytes > 0
        assert reply.codec == "raw"
        assert reply.interpreter_milliseconds == pytest.approx(0.005)


def test_who_is_late_is_left_out_at_the_deadline(bundle: Bundle) -> None:
    network, _ = fleet_of(bundle)
    network.devices["0"].delay = 1000.0
    replies, failures, seconds = ask(bundle, network, deadline=0.5)
    assert seconds == pytest.approx(0.5, abs=0.05)
    assert not replies[0].features
    assert isinstance(replies[0].error, DeadlineError)
    assert all(reply.features for reply in replies[1:])
    assert [device for device, _ in failures] == [network.devices["0"].id]


def test_a_link_that_ignores_its_deadline_is_cut_off(bundle: Bundle) -> None:
    network, _ = fleet_of(bundle)

    class Deaf:
        address = "deaf"

        async def infer(self, request: object, *, timeout: float, rest: bytes = b"") -> InferReply:
            del request, timeout, rest
            await asyncio.sleep(1000)
            return InferReply()

    async def work() -> list[DeviceReply]:
        route = Route("d", "deaf", Deaf(), ("submodel-0",))  # type: ignore[arg-type]
        return await dispatch(bundle.manifest, [route], Encoded(picture(bundle)), deadline=0.5)

    (reply,) = run(work())
    assert isinstance(reply.error, DeadlineError)
    assert network.devices


def spoil_id(reply: InferReply) -> None:
    reply.request_id = "another"


def spoil_version(reply: InferReply) -> None:
    reply.bundle_version += 1


def spoil_submodel(reply: InferReply) -> None:
    reply.outputs[0].submodel = "submodel-99"


def spoil_twice(reply: InferReply) -> None:
    reply.outputs.append(reply.outputs[0])


def spoil_nothing(reply: InferReply) -> None:
    del reply.outputs[:]


def spoil_shape(reply: InferReply) -> None:
    reply.outputs[0].feature += b"\0\0\0\0"


def spoil_odd(reply: InferReply) -> None:
    reply.outputs[0].logits = reply.outputs[0].logits[:-1]


def spoil_nan(reply: InferReply) -> None:
    count = len(reply.outputs[0].feature) // 4
    reply.outputs[0].feature = np.full(count, math.nan, "<f4").tobytes()


def spoil_infinite(reply: InferReply) -> None:
    count = len(reply.outputs[0].logits) // 4
    reply.outputs[0].logits = np.full(count, math.inf, "<f4").tobytes()


def spoil_manifest(reply: InferReply) -> None:
    reply.manifest = bytes(32)


@pytest.mark.fault
@pytest.mark.parametrize(
    "spoil",
    [
        spoil_manifest,
        spoil_id,
        spoil_version,
        spoil_submodel,
        spoil_twice,
        spoil_nothing,
        spoil_shape,
        spoil_odd,
        spoil_nan,
        spoil_infinite,
    ],
)
def test_garbage_is_named_and_left_out(bundle: Bundle, spoil: Callable[[InferReply], None]) -> None:
    network, _ = fleet_of(bundle)
    network.devices["1"].spoil = spoil
    replies, failures, _ = ask(bundle, network)
    assert not replies[1].features
    assert isinstance(replies[1].error, DeviceError)
    assert replies[1].error.code == "device.reply"
    assert "fake-1" in replies[1].error.message
    assert len(failures) == 1
    assert replies[0].features


def test_a_cut_wire_is_an_error_of_that_device_only(bundle: Bundle) -> None:
    network, _ = fleet_of(bundle)
    network.devices["0"].alive = False
    replies, failures, seconds = ask(bundle, network)
    assert isinstance(replies[0].error, LinkError)
    assert len(failures) == 1
    assert seconds < 0.1


def test_no_route_no_reply(bundle: Bundle) -> None:
    assert ask(bundle, Network())[0] == []


@pytest.mark.parametrize("wrong", ["shape", "type"])
def test_a_wrong_picture_is_refused_before_it_is_sent(bundle: Bundle, wrong: str) -> None:
    image = picture(bundle)
    image = image[1:] if wrong == "shape" else image.astype(np.float32)
    with pytest.raises(UsageError, match="takes pictures uint8"):
        Wire(bundle.manifest.input, DEFAULT_WIRE).picture(image)


def test_weak_classes_are_those_that_nobody_left_knows(bundle: Bundle) -> None:
    manifest = bundle.manifest
    first, *others = manifest.submodels
    elsewhere = {label for submodel in others for label in submodel.classes}
    weak = weak_classes(manifest, [first.id])
    assert set(weak) == set(first.classes) - elsewhere
    assert list(weak) == [label for label in manifest.classes if label in weak]
    assert weak_classes(manifest, []) == ()
    assert weak_classes(manifest, [submodel.id for submodel in manifest.submodels]) == manifest.classes


def test_an_answer_says_what_is_missing(bundle: Bundle) -> None:
    device = FakeDevice(0, bundle)
    order = bundle.manifest.fusion.order
    reply = DeviceReply(device.id, device.name, order[:1], {order[0]: np.zeros(3, np.float32)}, 1, 1, 1, 1)
    probabilities = np.linspace(0, 1, len(bundle.manifest.classes))
    answer = fused_answer(bundle.manifest, probabilities, [reply], 5.0)
    assert answer.label == bundle.manifest.classes[-1]
    assert (answer.answered, answer.expected, answer.complete) == (1, len(order), False)
    assert answer.missing == order[1:]
    assert answer.to_json()["missing"] == list(order[1:])
