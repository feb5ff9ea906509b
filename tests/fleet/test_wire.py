"""What each device is sent: raw where it costs nothing, shorter where the link is slow, and made once."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edvit_tf.bundle.manifest import InputSpec, SoundSpec
from edvit_tf.bundle.reader import Bundle
from edvit_tf.cli.idle_fleet import SIDE, idle_bundle, idle_vector
from edvit_tf.device.engine import Engine
from edvit_tf.device.served import Held, Served, Shelf
from edvit_tf.device.service import DeviceService, Facts
from edvit_tf.errors import DeadlineError, DeviceError, UsageError
from edvit_tf.fleet import Aggregator, Announced, Answer, Deployment, Timing
from edvit_tf.fleet.pace import STALE, Pace
from edvit_tf.fleet.wire import (
    CHEAP,
    DEFAULT_WIRE,
    GAIN,
    SAFE_QUALITY,
    Cost,
    Encoded,
    Wire,
    WireSettings,
    choose,
)
from edvit_tf.rpc import codecs
from edvit_tf.rpc.codecs import EXACT, JPEG, WEBP, Coding, decode
from edvit_tf.rpc.edvit_pb2 import HelloReply, HelloRequest, InferReply, InferRequest, Picture
from edvit_tf.rpc.link import InProcessLink, late

RAW_SIZE = SIDE * SIDE * 3
PHOTO = InputSpec(height=SIDE, width=SIDE, channels=3)
SOUND = SoundSpec(
    sample_rate=16000, window=400, hop=160, fft=512, low_hz=20, high_hz=8000, low_db=-80, high_db=0
)
SAFE = Coding(JPEG, SAFE_QUALITY)
LOSSLESS = Coding(WEBP)
COSTS = {LOSSLESS: Cost(68_000, 0.002), SAFE: Cost(28_000, 0.0007)}
BOTH = (JPEG, WEBP)


@dataclass(frozen=True, slots=True)
class Device:
    pace: Pace
    codecs: tuple[str, ...] = BOTH


def photograph(side: int = SIDE) -> np.ndarray:
    """As hard to make shorter as a photograph: shapes, and noise in them."""
    rows, columns = np.mgrid[:side, :side]
    plane = 128 + 60 * np.sin(rows / 9) + 60 * np.cos(columns / 7)
    noise = np.random.default_rng(1).normal(0, 4, (side, side, 3))
    return np.asarray((plane[:, :, np.newaxis] + noise).clip(0, 255), np.uint8)


def pace_of(raw_seconds: float) -> Pace:
    """Of a link over which a raw picture takes so long."""
    return Pace().beat(0.0).sent_raw(RAW_SIZE, raw_seconds)


def chosen(candidates: Sequence[Coding], pace: Pace, costs: Mapping[Coding, Cost] = COSTS) -> Coding:
    return choose(candidates, costs, pace, pace.byte_seconds, RAW_SIZE)


@pytest.mark.parametrize(
    ("raw_seconds", "codecs_there", "wanted"),
    [
        (0.0, BOTH, EXACT),
        (0.020, BOTH, EXACT),
        (0.050, BOTH, LOSSLESS),
        (0.600, BOTH, SAFE),
        (0.600, (WEBP,), LOSSLESS),
        (0.600, (), EXACT),
    ],
)
def test_the_link_decides(raw_seconds: float, codecs_there: tuple[str, ...], wanted: Coding) -> None:
    candidates = [coding for coding in (LOSSLESS, SAFE) if coding.codec in codecs_there]
    assert chosen(candidates, pace_of(raw_seconds)) == wanted


def test_a_device_that_decodes_slowly_is_sent_raw() -> None:
    fast, slow = pace_of(0.05), replace(pace_of(0.05), decoding=0.06)
    assert chosen([SAFE], fast) == SAFE
    assert chosen([SAFE], slow) == EXACT


def test_what_no_codec_makes_shorter_is_sent_raw() -> None:
    assert chosen([SAFE], pace_of(5.0), {SAFE: Cost(RAW_SIZE, 0.001)}) == EXACT
    assert chosen([SAFE], pace_of(5.0), {}) == EXACT, "nothing is known of it yet"


def test_a_link_that_has_become_fast_is_found_out() -> None:
    # A busy machine has made everything slow, and is not busy any more.
    pace = pace_of(0.1)
    assert chosen([SAFE], pace) == SAFE
    sent = 0
    while chosen([SAFE], pace) == SAFE:
        pace = pace.sent_coded(28_000, 0.006, 0.001)
        sent += 1
        assert sent <= STALE
    pace = pace.sent_raw(RAW_SIZE, 0.007)
    assert chosen([SAFE], pace) == EXACT
    assert pace.byte_seconds * RAW_SIZE < GAIN


def test_a_slow_link_is_not_tried_with_raw_pictures() -> None:
    pace = pace_of(0.6)
    for _ in range(3 * STALE):
        pace = pace.sent_coded(28_000, 0.11, 0.001)
        assert chosen([SAFE], pace) == SAFE
    assert pace.byte_seconds * RAW_SIZE > CHEAP


async def learnt(spec: InputSpec, settings: WireSettings = DEFAULT_WIRE) -> Wire:
    wire = Wire(spec, settings)
    image = photograph()[:, :, : spec.channels]
    wire.coding(Device(pace_of(1.0)))
    wire.picture(image)
    await wire.close()
    return wire


async def test_photographs_may_be_lossy_and_sound_never() -> None:
    slow = pace_of(0.6)
    assert (await learnt(PHOTO)).coding(Device(slow)) == SAFE
    sound = await learnt(replace(PHOTO, channels=1, sound=SOUND))
    assert sound.coding(Device(slow)) in (EXACT, LOSSLESS)


async def test_a_picture_of_a_few_packets_is_sent_as_it_is() -> None:
    small = Wire(replace(PHOTO, height=32, width=32), DEFAULT_WIRE)
    for _ in range(2):
        assert small.coding(Device(Pace().sent_raw(3072, 5.0))) == EXACT
        small.picture(photograph(32))
        await small.close()


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        (WireSettings("raw"), EXACT),
        (WireSettings("jpeg"), SAFE),
        (WireSettings("jpeg", 60), Coding(JPEG, 60)),
        (WireSettings("webp"), LOSSLESS),
        (WireSettings("webp", 80), Coding(WEBP, 80)),
    ],
)
async def test_the_owner_may_decide(settings: WireSettings, wanted: Coding) -> None:
    wire = Wire(PHOTO, settings)
    for pace in (Pace(), pace_of(9.0)):
        assert wire.coding(Device(pace)) == wanted
        assert wire.coding(Device(pace, ())) == EXACT, "raw is what every device takes"


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (("gif", None), "one of auto, raw, jpeg, webp"),
        (("auto", 90), "needs --wire jpeg"),
        (("raw", 90), "needs --wire jpeg"),
        (("jpeg", 0), "from 1 to 100"),
        (("webp", 101), "from 1 to 100"),
    ],
)
def test_a_wrong_setting_says_what_is_right(wrong: tuple[str, int | None], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        WireSettings(*wrong)


async def test_a_picture_is_encoded_once_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Coding] = []

    def counted(image: np.ndarray, coding: Coding = EXACT) -> Picture:
        made.append(coding)
        return codecs.encode(image, coding)

    monkeypatch.setattr("edvit_tf.fleet.wire.encode", counted)
    image = photograph()
    encoded = Encoded(image)
    wanted = [SAFE, EXACT, LOSSLESS] * 5
    parts = await asyncio.gather(*map(encoded.serialised, wanted))
    assert sorted(map(str, made)) == sorted(map(str, {*wanted}))
    for coding, (used, part) in zip(wanted, parts, strict=True):
        assert used == coding
        decoded = decode(InferRequest.FromString(part).picture, (SIDE, SIDE, 3))
        if coding != SAFE:
            np.testing.assert_array_equal(decoded, image)


async def test_noise_that_a_codec_makes_longer_goes_raw() -> None:
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    used, part = await Encoded(image).serialised(Coding(JPEG, 100))
    assert used == EXACT
    assert InferRequest.FromString(part).picture.codec == "raw"


class Idle:
    """An engine that knows the answer."""

    def run(self, image: np.ndarray) -> object:
        assert image.shape == (SIDE, SIDE, 3)
        return idle_vector()


class SlowLink(InProcessLink):
    """A link on which each byte takes its time, on one wire for all."""

    def __init__(
        self, service: DeviceService, address: str, *, wire: asyncio.Lock, byte_seconds: float, waiting: float
    ) -> None:
        super().__init__(service, address)
        self._wire = wire
        self._byte_seconds = byte_seconds
        self._waiting = waiting

    async def infer(self, request: InferRequest, *, timeout: float, rest: bytes = b"") -> InferReply:
        try:
            async with asyncio.timeout(timeout), self._wire:
                await asyncio.sleep(len(rest) * self._byte_seconds)
            await asyncio.sleep(self._waiting)
        except TimeoutError:
            raise late(self.address, timeout) from None
        return await super().infer(request, timeout=timeout, rest=rest)


@asynccontextmanager
async def slow_fleet(
    bundle: Bundle,
    byte_seconds: float,
    *,
    waiting: float = 0.0,
    deaf: int = 0,
    wire: WireSettings = DEFAULT_WIRE,
) -> AsyncIterator[Aggregator]:
    """Three devices on one slow wire; so many of them know no codec, and each takes its time, `waiting`."""
    shared = asyncio.Lock()
    services = {}
    digest = hashlib.sha256(bundle.manifest_bytes).hexdigest()
    submodels = bundle.manifest.submodels[:3]
    for number, submodel in enumerate(submodels):
        sha256 = submodel.variants[0].sha256
        held = Held("idle", sha256, "", "f32", 1, engine=Engine(Idle()))  # type: ignore[arg-type]
        served = Served("idle", 1, digest, (SIDE, SIDE, 3), {submodel.id: held})
        service = DeviceService(
            Facts(f"{number:064x}", submodel.id, "idle/1.0", 10**9), Shelf(settled=served)
        )
        if number < deaf:
            service.hello = raw_only(service)  # type: ignore[assignment, method-assign]
        services[str(number)] = service
    deployment = Deployment(
        {submodel.id: f"{number:064x}" for number, submodel in enumerate(submodels)},
        tuple(
            Announced(str(number), f"{number:064x}", submodel.id) for number, submodel in enumerate(submodels)
        ),
    )
    async with Aggregator(
        bundle,
        deployment,
        connect=lambda address, _: SlowLink(
            services[address], address, wire=shared, byte_seconds=byte_seconds, waiting=waiting
        ),
        browse=False,
        timing=Timing(heartbeat=0.1),
        wire=wire,
    ) as aggregator:
        assert await aggregator.complete(5.0)
        await asyncio.sleep(0.3)  # for some heartbeats
        yield aggregator
    for service in services.values():
        service.close()


def raw_only(service: DeviceService) -> Callable[[HelloRequest], Coroutine[Any, Any, HelloReply]]:
    """The hello of a device without Pillow's codecs."""
    hello = service.hello

    async def say(request: HelloRequest) -> HelloReply:
        reply = await hello(request)
        reply.ClearField("codecs")
        return reply

    return say


def sent(answer: Answer) -> list[tuple[str, int]]:
    return [(part.codec, part.sent_bytes) for part in answer.devices]


async def test_a_slow_wire_is_noticed_by_the_second_answer(tmp_path: Path) -> None:
    bundle = idle_bundle(tmp_path / "bundle")
    image = photograph()
    async with slow_fleet(bundle, 1e-6, deaf=1) as aggregator:
        first = await aggregator.classify(image)
        assert [codec for codec, _ in sent(first)] == ["raw"] * 3
        await asyncio.sleep(0.05)  # the codings are measured beside the answers
        await aggregator.classify(image)
        await asyncio.sleep(0.05)
        start = time.monotonic()
        later = await aggregator.classify(image)
        seconds = time.monotonic() - start
        assert [codec for codec, _ in sent(later)] == ["raw", "jpeg", "jpeg"]
        assert all(size < RAW_SIZE / 3 for codec, size in sent(later) if codec == "jpeg")
        assert seconds < 0.7 * first.milliseconds / 1000


async def test_a_device_that_cannot_decode_what_it_said_is_sent_raw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = idle_bundle(tmp_path / "bundle")
    image = photograph()

    def broken(picture: Picture, shape: tuple[int, int, int]) -> np.ndarray:
        if picture.codec == JPEG:
            raise DeviceError("the picture cannot be decoded as jpeg", code="device.picture")
        return decode(picture, shape)

    async with slow_fleet(bundle, 0.0, wire=WireSettings("jpeg")) as aggregator:
        assert {codec for codec, _ in sent(await aggregator.classify(image))} == {"jpeg"}
        monkeypatch.setattr("edvit_tf.device.service.decode", broken)
        with pytest.raises(DeadlineError, match="cannot be decoded"):
            await aggregator.classify(image)
        assert await aggregator.complete(5.0)
        answer = await aggregator.classify(image)
        assert answer.answered == 3
        assert {codec for codec, _ in sent(answer)} == {"raw"}


async def test_what_is_slow_for_another_reason_is_not_coded(tmp_path: Path) -> None:
    bundle = idle_bundle(tmp_path / "bundle")
    async with slow_fleet(bundle, 0.0, waiting=0.06) as aggregator:
        answers = [await aggregator.classify(photograph()) for _ in range(15)]
    raw = [answer for answer in answers if {codec for codec, _ in sent(answer)} == {"raw"}]
    assert len(raw) >= 10, [sent(answer) for answer in answers]


async def test_a_wire_on_which_raw_is_late_gets_through_coded(tmp_path: Path) -> None:
    bundle = idle_bundle(tmp_path / "bundle")
    image = photograph()
    async with slow_fleet(bundle, 2.5e-6) as aggregator:
        answers = []
        for _ in range(6):
            await asyncio.sleep(0.6)  # who was late rests a while
            answers.append(await aggregator.classify(image, deadline=0.5))
        assert answers[0].answered < 3
        assert answers[-1].answered == 3, [sent(answer) for answer in answers]
        assert {codec for codec, _ in sent(answers[-1])} == {"jpeg"}
