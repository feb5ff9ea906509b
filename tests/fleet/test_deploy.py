"""Placing and sending: what arrives is checked, what fails is named."""

import asyncio

import pytest

from edvit_tf.bundle.manifest import Submodel, Variant
from edvit_tf.bundle.reader import Bundle
from edvit_tf.errors import DeviceError, LinkError, PlanError
from edvit_tf.fleet import Deployment, Progress, deploy
from edvit_tf.fleet.deploy import candidates, ensure
from edvit_tf.fleet.hello import say_hello
from edvit_tf.rpc.edvit_pb2 import HelloReply
from edvit_tf.rpc.link import PROTOCOL
from tests.fleet.fakes import FakeDevice, Network


def deployed(bundle: Bundle, network: Network, seen: list[Progress] | None = None) -> Deployment:
    on_progress = None if seen is None else seen.append
    work = deploy(bundle, network.announced, connect=network.connect, on_progress=on_progress)
    return asyncio.run(work)


def fakes(bundle: Bundle, number: int | None = None) -> Network:
    count = len(bundle.manifest.submodels) if number is None else number
    return Network(*(FakeDevice(index, bundle) for index in range(count)))


def test_equal_devices_get_one_sub_model_each(bundle: Bundle) -> None:
    network = fakes(bundle)
    seen: list[Progress] = []
    deployment = deployed(bundle, network, seen)
    submodels = {submodel.id for submodel in bundle.manifest.submodels}
    assert set(deployment.assignment) == submodels
    assert len(set(deployment.assignment.values())) == len(submodels)
    for device in network.devices.values():
        assert deployment.submodels_of(device.id) == tuple(device.served)
    serving = [progress for progress in seen if progress.step == "serving"]
    assert {progress.submodel for progress in serving} == submodels
    assert all(progress.sent == progress.total > 0 for progress in serving)


def test_one_device_can_take_all(bundle: Bundle) -> None:
    network = fakes(bundle, 1)
    deployment = deployed(bundle, network)
    assert len(network.devices["0"].served) == len(bundle.manifest.submodels)
    assert len(deployment.devices) == 1


def test_what_is_there_is_not_sent_again(bundle: Bundle) -> None:
    network = fakes(bundle)
    deployed(bundle, network)
    before = [device.installs for device in network.devices.values()]
    assert all(before)
    deployed(bundle, network)
    assert [device.installs for device in network.devices.values()] == before


def test_too_little_memory_everywhere_is_a_plan_error(bundle: Bundle) -> None:
    network = Network(FakeDevice(0, bundle, memory_bytes=10))
    with pytest.raises(PlanError, match="fake-0"):
        deployed(bundle, network)
    assert network.devices["0"].installs == 0


def test_who_cannot_be_reached_is_left_out_when_the_others_suffice(bundle: Bundle) -> None:
    network = fakes(bundle)
    network.devices["0"].alive = False
    deployment = deployed(bundle, network)
    assert network.devices["0"].id not in deployment.assignment.values()
    assert set(deployment.assignment) == {submodel.id for submodel in bundle.manifest.submodels}


def test_nobody_left_names_every_reason(bundle: Bundle) -> None:
    network = fakes(bundle, 3)
    network.devices["0"].alive = False
    network.devices["1"].protocol = PROTOCOL + 1
    network.devices["2"].runtime = "tflite-runtime/1.0"
    with pytest.raises(LinkError) as caught:
        deployed(bundle, network)
    for part in ("fake-0: the wire is cut", "fake-1", "update edvit-tf", "tflite-runtime/1.0"):
        assert part in caught.value.message
    with pytest.raises(LinkError, match="check that `edvit-tf device run` is running"):
        deployed(bundle, Network())


def test_a_refusal_names_device_sub_model_and_reason(bundle: Bundle) -> None:
    network = fakes(bundle, 1)
    network.devices["0"].refuses = "the disk is full\x1b[31m"
    with pytest.raises(DeviceError, match=r"fake-0 refused submodel-\d: the disk is full\[31m"):
        deployed(bundle, network)


def test_a_device_that_holds_something_else_afterwards_is_found_out(bundle: Bundle) -> None:
    class Liar(FakeDevice):
        @property
        def served(self) -> dict[str, str]:
            return {submodel.id: "0" * 64 for submodel in self.bundle.manifest.submodels}

        @served.setter
        def served(self, value: dict[str, str]) -> None:
            del value

    with pytest.raises(DeviceError, match="does not hold") as caught:
        deployed(bundle, Network(Liar(0, bundle)))
    assert caught.value.code == "device.holding"


def test_another_version_of_the_same_bytes_is_sent_anew(bundle: Bundle, newer: Bundle) -> None:
    network = fakes(bundle, 1)
    deployed(bundle, network)
    device = network.devices["0"]
    device.bundle = newer

    async def work() -> None:
        link = network.connect("0")
        hello = await say_hello(link, device.id)
        after = await ensure(link, hello, newer, [newer.manifest.submodels[0].id])
        assert after.bundle_version == newer.manifest.version

    asyncio.run(work())
    sent = [*bundle.manifest.submodels, newer.manifest.submodels[0]]
    assert device.installs == sum(len(submodel.variants) for submodel in sent), "each is measured"


def test_the_variant_fits_the_runtime(bundle: Bundle) -> None:
    submodel = bundle.manifest.submodels[0]
    said = HelloReply(runtime="ai-edge-litert/9.0")
    assert candidates(submodel, said) == list(submodel.variants)
    with pytest.raises(DeviceError, match="runs none of them"):
        candidates(submodel, HelloReply(runtime="something/1.0"))
    said.targets.append("coral")
    with pytest.raises(DeviceError, match="runs none of them"):
        candidates(submodel, said)


def test_a_device_with_an_accelerator_gets_what_was_made_for_it_and_others_do_not() -> None:
    variants = tuple(
        Variant(
            file=f"submodels/one.{name}.tflite",
            format=name,
            target=target,
            runtimes={"ai-edge-litert": "2.3.0"},
            arena_bytes=0,
            partitions=1,
            operators=(),
            inputs=(),
            outputs=(),
            test_vector="vectors/one",
        )
        for name, target in (("int8", "any"), ("edgetpu", "coral"), ("f32", "any"))
    )
    submodel = Submodel(id="one", classes=("a",), parameters=1, macs=1, energy_weight=1.0, variants=variants)

    def offered(*targets: str) -> list[str]:
        said = HelloReply(runtime="ai-edge-litert/2.3.0", targets=targets)
        return [variant.format for variant in candidates(submodel, said)]

    assert offered("any", "cpu", "coral") == ["edgetpu", "int8", "f32"]
    assert offered("any", "cpu") == offered() == ["int8", "f32"]
