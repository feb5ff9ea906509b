"""A new version on devices that answer: all or none, and no answer is of both."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from edvit_tf.bundle.files import SIGNATURE
from edvit_tf.bundle.manifest import Accuracies
from edvit_tf.bundle.reader import Bundle, open_bundle
from edvit_tf.device.engine import Runtime, installed_runtime
from edvit_tf.device.install import Installer
from edvit_tf.device.served import Shelf
from edvit_tf.device.service import DeviceService, Facts
from edvit_tf.device.store import Store
from edvit_tf.errors import DeviceError, EdvitError, LinkError
from edvit_tf.fleet import Aggregator, Announced, Answer, Deployment, deploy
from edvit_tf.fleet.deploy import _install_fastest, examine
from edvit_tf.fleet.hello import say_hello
from edvit_tf.fleet.keys import FleetKeys, make_keys
from edvit_tf.fleet.rollout import Party, bearable, digest_of, roll, steps
from edvit_tf.fleet.signing import rolled_back, signed
from edvit_tf.fleet.survey import newest_version
from edvit_tf.fleet.transfer import Parcel, install
from edvit_tf.rpc.edvit_pb2 import HelloReply, InferReply, InferRequest, InstallReply, InstallRequest
from edvit_tf.rpc.link import InProcessLink
from edvit_tf.runtime.check import Verdict, verify
from tests.conftest import GOLDEN
from tests.fleet.clock import now, run
from tests.fleet.fakes import FakeDevice, device_id, picture

RUNTIME = replace(installed_runtime(), verify=verify)


class Device(DeviceService):
    """A real device service whose wire can break after so many bytes, and whose answers can be spoiled."""

    def __init__(
        self,
        number: int,
        store: Store,
        *,
        memory_bytes: int,
        runtime: Runtime,
        signer: Ed25519PublicKey,
    ) -> None:
        installer = Installer(store, runtime, memory_bytes, signer)
        facts = Facts(device_id(number), f"device-{number}", runtime.name, memory_bytes)
        super().__init__(facts, _empty(installer), installer)
        self.breaks: list[int] = []
        self.chunks = 0
        self.bytes = 0
        self.garbage = False

    async def install(self, requests: AsyncIterable[InstallRequest]) -> AsyncGenerator[InstallReply, None]:
        left = self.breaks.pop(0) if self.breaks else 1 << 40

        async def counted() -> AsyncGenerator[InstallRequest, None]:
            nonlocal left
            async for request in requests:
                data = request.chunk
                left -= len(data)
                if left < 0:
                    keep = len(data) + left
                    self.bytes += keep
                    if keep:
                        yield InstallRequest(chunk=data[:keep])
                    return
                self.bytes += len(data)
                yield request

        async for reply in super().install(counted()):
            yield reply

    async def infer(self, request: InferRequest) -> InferReply:
        reply = await super().infer(request)
        if self.garbage and request.bundle_version > 1:
            for output in reply.outputs:
                output.feature = (-np.frombuffer(output.feature, "<f4")).tobytes()
        return reply


def _empty(installer: Installer) -> Shelf:
    return asyncio.run(installer.restore())


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> FleetKeys:
    return make_keys(tmp_path_factory.mktemp("fleet"))


@pytest.fixture(scope="module")
def bundle(bundle: Bundle, keys: FleetKeys, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return signed(bundle, keys, tmp_path_factory.mktemp("signed"))


@pytest.fixture
def newer(newer: Bundle, keys: FleetKeys, tmp_path: Path) -> Bundle:
    (newer.path / SIGNATURE).unlink()
    return signed(newer, keys, tmp_path / "signed")


@pytest.fixture
def fleet(tmp_path: Path, keys: FleetKeys) -> Iterator[list[Device]]:
    made = make(tmp_path, keys)
    yield made
    for device in made:
        device.close()


def make(
    folder: Path, keys: FleetKeys, *, memory_bytes: int = 10**9, runtime: Runtime = RUNTIME
) -> list[Device]:
    signer = keys.bundle_key.public_key()
    return [
        Device(number, Store(folder / str(number)), memory_bytes=memory_bytes, runtime=runtime, signer=signer)
        for number in range(2)
    ]


class Network:
    def __init__(self, devices: list[Device]) -> None:
        self.devices = devices
        self.announced = [Announced(str(number), device_id(number)) for number in range(len(devices))]

    def connect(self, address: str, device_id: str = "") -> InProcessLink:
        del device_id
        return InProcessLink(self.devices[int(address)], address)


async def versions(network: Network) -> list[list[tuple[int, bool]]]:
    """(version, settled) of what each device holds."""
    hellos = [await say_hello(network.connect(device.address), device.id) for device in network.announced]
    return [[(one.version, one.settled) for one in hello.generations] for hello in hellos]


def test_the_fleet_answers_all_the_time_and_never_from_two_versions(
    fleet: list[Device], bundle: Bundle, newer: Bundle
) -> None:
    network = Network(fleet)
    answers: list[tuple[int, Answer]] = []

    async def story() -> None:
        before = await deploy(bundle, network.announced, connect=network.connect)
        stack = AsyncExitStack()

        async def open_with(made: Bundle, deployment: Deployment) -> Aggregator:
            fleet = Aggregator(made, deployment, connect=network.connect, browse=False, trial=True)
            return await stack.enter_async_context(fleet)

        now = [(1, await open_with(bundle, before))]
        done = asyncio.Event()

        async def ask() -> None:
            while not done.is_set():
                version, aggregator = now[-1]
                answers.append((version, await aggregator.classify(picture(bundle))))
                await asyncio.sleep(0.001)

        async def switch(deployment: Deployment) -> None:
            assert await versions(network) == [[(1, True), (2, False)]] * 2
            now.append((2, await open_with(newer, deployment)))

        asking = asyncio.create_task(ask())
        await deploy(newer, network.announced, connect=network.connect, on_switch=switch)
        await asyncio.sleep(0.1)
        done.set()
        await asking
        await stack.aclose()
        assert await versions(network) == [[(2, True)]] * 2

    asyncio.run(story())
    assert {version for version, _ in answers} == {1, 2}
    assert all(answer.complete for _, answer in answers)


def test_an_answer_that_is_wrong_takes_everything_back(
    fleet: list[Device], bundle: Bundle, newer: Bundle
) -> None:
    network = Network(fleet)

    async def story() -> None:
        deployment = await deploy(bundle, network.announced, connect=network.connect)
        fleet[1].garbage = True
        with pytest.raises(DeviceError, match=r"device-1 answers the test vector .* wrongly \(cosine -1"):
            await deploy(newer, network.announced, connect=network.connect)
        assert await versions(network) == [[(1, True)]] * 2
        async with Aggregator(bundle, deployment, connect=network.connect, browse=False) as aggregator:
            assert (await aggregator.classify(picture(bundle))).complete

    asyncio.run(story())


@pytest.mark.fault
def test_a_fleet_goes_back_by_itself_only_to_what_it_holds(
    fleet: list[Device], keys: FleetKeys, bundle: Bundle, newer: Bundle, tmp_path: Path
) -> None:
    network = Network(fleet)

    async def story() -> None:
        with pytest.raises(DeviceError, match="not signed"):
            await deploy(open_bundle(GOLDEN), network.announced, connect=network.connect)
        await deploy(bundle, network.announced, connect=network.connect)
        fleet[1].garbage = True
        with pytest.raises(DeviceError, match="wrongly"):
            await deploy(newer, network.announced, connect=network.connect)
        assert await versions(network) == [[(1, True)]] * 2, "the old bundle was held: nothing to decide"
        fleet[1].garbage = False
        await deploy(newer, network.announced, connect=network.connect)
        with pytest.raises(DeviceError, match="is older than version 2"):
            await deploy(bundle, network.announced, connect=network.connect)
        assert await versions(network) == [[(2, True)]] * 2
        decided = rolled_back(bundle, keys, tmp_path, newest=2)
        await deploy(decided, network.announced, connect=network.connect)
        assert await versions(network) == [[(1, True)]] * 2

    asyncio.run(story())


def test_the_newest_version_is_what_any_device_holds_of_that_bundle(
    fleet: list[Device], bundle: Bundle, newer: Bundle
) -> None:
    network = Network(fleet)

    async def newest(name: str) -> int:
        return await newest_version(network.announced, name, connect=network.connect)

    async def story() -> None:
        assert await newest(bundle.manifest.name) == 0
        await deploy(bundle, network.announced, connect=network.connect)
        assert await newest(bundle.manifest.name) == 1
        submodel = newer.manifest.submodels[0]
        await install(network.connect("1"), Parcel(newer, submodel.id, submodel.variant("int8")))
        assert await newest(bundle.manifest.name) == 2
        assert await newest("another") == 0

    asyncio.run(story())


def test_a_deploy_that_was_broken_off_goes_on(fleet: list[Device], bundle: Bundle, newer: Bundle) -> None:
    """As when the aggregator is killed: no rollback ran, and another process deploys the same bundle."""
    network = Network(fleet)

    async def story() -> None:
        await deploy(bundle, network.announced, connect=network.connect)
        submodel = newer.manifest.submodels[0]
        await install(network.connect("0"), Parcel(newer, submodel.id, submodel.variant("int8")))
        assert await versions(network) == [[(1, True), (2, False)], [(1, True)]]
        await deploy(newer, network.announced, connect=network.connect)
        assert await versions(network) == [[(2, True)]] * 2

    asyncio.run(story())


def test_a_transfer_goes_on_where_it_broke(fleet: list[Device], bundle: Bundle) -> None:
    device = fleet[0]
    device.breaks = [10_000, 20_001, 0, 3]
    variant = bundle.manifest.submodels[0].variant("f32")
    parcel = Parcel(bundle, bundle.manifest.submodels[0].id, variant)

    async def story() -> int:
        return await install(InProcessLink(device), parcel)

    assert asyncio.run(story()) > 0
    assert device.bytes == parcel.total, "no byte was sent twice"


def test_without_memory_for_both_it_is_refused_unless_an_outage_is_accepted(
    tmp_path: Path, keys: FleetKeys, bundle: Bundle, newer: Bundle
) -> None:
    needed = max(variant.memory_bytes for s in bundle.manifest.submodels for variant in s.variants)
    # Twice the same bytes are held once, so the new version comes in another format.
    other = replace(
        newer,
        manifest=replace(
            newer.manifest,
            submodels=tuple(replace(s, variants=(s.variant("int8"),)) for s in newer.manifest.submodels),
        ),
    )
    first = replace(
        bundle,
        manifest=replace(
            bundle.manifest,
            submodels=tuple(replace(s, variants=(s.variant("f32"),)) for s in bundle.manifest.submodels),
        ),
    )
    devices = make(tmp_path, keys, memory_bytes=needed)
    network = Network(devices)

    async def story() -> None:
        await deploy(first, network.announced, connect=network.connect)
        with pytest.raises(DeviceError, match="no memory for the old and the new version") as caught:
            await deploy(other, network.announced, connect=network.connect)
        assert caught.value.code == "deploy.outage"
        assert await versions(network) == [[(1, True)]] * 2
        await deploy(other, network.announced, connect=network.connect, outage=True)
        assert await versions(network) == [[(2, True)]] * 2

    asyncio.run(story())
    for device in devices:
        device.close()


def test_each_device_keeps_the_variant_that_it_runs_fastest(
    tmp_path: Path, keys: FleetKeys, bundle: Bundle
) -> None:
    submodel = bundle.manifest.submodels[0]
    speeds = {submodel.variant("f32").sha256: 100, submodel.variant("int8").sha256: 900}

    def measured(flatbuffer: Path, _: Path) -> Verdict:
        return Verdict(ok=True, reason="", microseconds=speeds[flatbuffer.name])

    (device, other) = make(tmp_path, keys, runtime=replace(RUNTIME, verify=measured))
    parcels = [Parcel(bundle, submodel.id, variant) for variant in submodel.variants]

    async def story() -> HelloReply:
        await _install_fastest(InProcessLink(device), parcels, None)
        return await say_hello(InProcessLink(device), "")

    (holding,) = asyncio.run(story()).holdings
    assert (holding.format, holding.microseconds) == ("f32", 100)
    device.close()
    other.close()


def test_health_is_asked_over_the_link(fleet: list[Device], bundle: Bundle) -> None:
    async def story() -> None:
        link = InProcessLink(fleet[0])
        hello = await say_hello(link, "")
        with pytest.raises(EdvitError, match="does not hold") as caught:
            await examine(link, hello, bundle, [bundle.manifest.submodels[0].id])
        assert caught.value.code == "device.holding"

    asyncio.run(story())


BEFORE = b"the bundle before"


@pytest.fixture
def fakes(bundle: Bundle) -> list[FakeDevice]:
    return [FakeDevice(number, bundle) for number in range(4)]


def rolling(fakes: list[FakeDevice], bundle: Bundle, lost: int, seconds: float) -> list[tuple[str, float]]:
    """Roll over devices, of which some are lost for a while after the first step; who was staged when."""
    staged: list[tuple[str, float]] = []

    async def stage(party: Party) -> None:
        staged.append((party.name, now()))
        if len(staged) == 1:
            for fake in fakes[-lost:]:
                fake.alive = False

            def back() -> None:
                for fake in fakes:
                    fake.alive = True

            asyncio.get_running_loop().call_later(seconds, back)

    async def story() -> None:
        parties = []
        for fake in fakes:
            link = InProcessLink(fake, fake.name)
            parties.append(Party(link, await say_hello(link, fake.id), ("s",), BEFORE, tight=False))
        await roll(parties, bundle, stage, most=1)

    run(story())
    return staged


@pytest.mark.fault
@pytest.mark.parametrize("lost", [2, 3])
def test_a_deploy_waits_while_half_of_the_devices_are_lost(
    fakes: list[FakeDevice], bundle: Bundle, lost: int, caplog: pytest.LogCaptureFixture
) -> None:
    staged = rolling(fakes, bundle, lost, 30.0)
    assert [name for name, _ in staged] == [f"fake-{number}" for number in range(4)]
    first, *others = [seconds for _, seconds in staged]
    assert all(30 <= seconds - first <= 33 for seconds in others)
    assert f"waiting: {lost} of 4 devices cannot be reached" in caplog.text
    assert all(fake.settled == [digest_of(bundle)] for fake in fakes)


@pytest.mark.fault
def test_a_deploy_does_not_wait_for_less_than_half(
    fakes: list[FakeDevice], bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    staged = rolling(fakes, bundle, 1, 30.0)
    assert [seconds for _, seconds in staged] == [staged[0][1]] * 4
    assert "waiting" not in caplog.text


@pytest.mark.fault
def test_a_deploy_that_waited_in_vain_is_taken_back(fakes: list[FakeDevice], bundle: Bundle) -> None:
    with pytest.raises(LinkError, match="2 of 4 devices cannot be reached") as caught:
        rolling(fakes, bundle, 2, 1000.0)
    assert caught.value.code == "deploy.lost"
    assert [fake.settled for fake in fakes] == [[BEFORE], [], [], []]


@pytest.mark.parametrize(
    ("losses", "number"),
    [([0.0] * 2, 0), ([0.0] * 3, 1), ([0.0] * 10, 4), ([0.02] * 10, 2), ([0.06] + [0.0] * 9, 0), ([], 0)],
)
def test_the_fusion_bears_what_was_measured_and_never_half(
    bundle: Bundle, losses: list[float], number: int
) -> None:
    submodels = tuple(replace(bundle.manifest.submodels[0], id=f"s{i}") for i in range(len(losses)))
    accuracies = Accuracies(
        teacher=1.0, fused=0.9, variants={}, missing={f"s{i}": 0.9 - loss for i, loss in enumerate(losses)}
    )
    assert bearable(replace(bundle.manifest, submodels=submodels, accuracies=accuracies)) == number


def test_steps_are_no_larger_than_the_fusion_bears(fleet: list[Device]) -> None:
    parties = [
        Party(InProcessLink(fleet[0]), HelloReply(id=str(i), name=str(i)), ("s",) * (1 + i % 2), b"x", i > 6)
        for i in range(10)
    ]
    made = steps(parties, 3)
    assert sorted(party.hello.id for step in made for party in step) == [str(i) for i in range(10)]
    assert all(sum(len(party.submodels) for party in step) <= 3 for step in made)
    assert all(len({party.tight for party in step}) == 1 for step in made)
    assert all(len(step) == 1 for step in steps(parties, 0))
