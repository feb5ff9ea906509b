"""In which codec each device is sent a picture: a shorter one where its link is slow, made once an answer."""

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from edvit_tf.bundle.manifest import InputSpec
from edvit_tf.errors import UsageError
from edvit_tf.fleet.pace import STALE, Pace
from edvit_tf.rpc.codecs import EXACT, JPEG, RAW, WEBP, Coding, encode
from edvit_tf.rpc.edvit_pb2 import InferRequest

AUTO = "auto"
CHOICES = (AUTO, RAW, JPEG, WEBP)
# At this quality, colours at full size, CIFAR-10 at 32 px lost nothing (docs/results/wire.md).
SAFE_QUALITY = 95
# A codec is work on both sides, and a lossy one is not the picture: both have to save so many seconds. A busy
# machine alone makes ten answers seem ten milliseconds slow.
GAIN = 0.020
# Of a few packets no link is made faster: a picture of fewer bytes is sent as it is.
SMALLEST = 4096
# A raw picture that takes at most so many seconds is sent now and then, to see whether the link still needs
# a codec.
CHEAP = 0.050
# After so many pictures it is measured again how short each coding makes one.
RELEARN = 100


@dataclass(frozen=True, slots=True)
class WireSettings:
    """`codec` is one of `CHOICES`; `quality` from 1 to 100 is that of jpeg or webp.

    Without a quality jpeg has `SAFE_QUALITY` and webp loses nothing.

    Raises:
        UsageError: there is no such codec, or a quality without use or out of range.
    """

    codec: str = AUTO
    quality: int | None = None

    def __post_init__(self) -> None:
        if self.codec not in CHOICES:
            raise UsageError(f"--wire is one of {', '.join(CHOICES)}, not {self.codec!r}")
        if self.quality is not None and self.codec not in (JPEG, WEBP):
            raise UsageError("--wire-quality needs --wire jpeg or --wire webp")
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise UsageError(f"--wire-quality is from 1 to 100, not {self.quality}")

    @property
    def forced(self) -> Coding | None:
        """What every device is sent that can read it; None where the link decides."""
        if self.codec == AUTO:
            return None
        quality = SAFE_QUALITY if self.codec == JPEG and self.quality is None else self.quality
        return Coding(self.codec, quality)


DEFAULT_WIRE = WireSettings()


@dataclass(frozen=True, slots=True)
class Cost:
    """What a coding made of the last picture that was measured: bytes, and seconds to encode it."""

    size: int
    seconds: float


class Receiver(Protocol):
    """A device, as far as it matters here."""

    @property
    def codecs(self) -> Sequence[str]:
        """The codecs that it takes beside raw."""

    @property
    def pace(self) -> Pace:
        """How fast its link is."""


class Wire:
    """Chooses a coding for each device, and encodes.

    Left to itself it takes the exact coding WebP for any picture, and JPEG for photographs. A spectrogram is
    never lossy: a codec made for eyes drops just what differs between two sounds.
    """

    def __init__(self, spec: InputSpec, settings: WireSettings) -> None:
        self._spec = spec
        self._forced = settings.forced
        self._raw_size = spec.height * spec.width * spec.channels
        lossy = () if spec.sound is not None else (Coding(JPEG, SAFE_QUALITY),)
        free = self._forced is None and self._raw_size >= SMALLEST
        self._candidates = (Coding(WEBP), *lossy) if free else ()
        self._costs: dict[Coding, Cost] = {}
        self._pictures = 0
        # Whether some link was so slow lately that a codec may be worth it.
        self._needed = False
        self._learning: asyncio.Task[None] | None = None

    def coding(self, to: Receiver) -> Coding:
        """What to send to a device."""
        if self._forced is not None:
            return self._forced if self._forced.codec in to.codecs else EXACT
        if not self._candidates:
            return EXACT
        slowness = to.pace.byte_seconds
        if slowness * self._raw_size < GAIN:
            return EXACT
        self._needed = True
        codecs = to.codecs
        candidates = [coding for coding in self._candidates if coding.codec in codecs]
        return choose(candidates, self._costs, to.pace, slowness, self._raw_size)

    def picture(self, image: np.ndarray) -> "Encoded":
        """Take a picture uint8 [height, width, channels].

        Raises:
            UsageError: when it has another shape or type than the bundle takes.
        """
        _check(image, self._spec)
        if self._needed and self._learning is None and self._due():
            self._learning = asyncio.create_task(asyncio.to_thread(self._learn, image))
            self._learning.add_done_callback(self._learnt)
        return Encoded(image)

    async def close(self) -> None:
        """Wait for what is being measured."""
        if self._learning is not None:
            await asyncio.wait({self._learning})

    def _due(self) -> bool:
        """Whether to measure the codings on this picture."""
        self._pictures += 1
        return not self._costs or self._pictures >= RELEARN

    def _learn(self, image: np.ndarray) -> None:
        costs = {}
        for coding in self._candidates:
            start = time.perf_counter()
            size = len(encode(image, coding).data)
            costs[coding] = Cost(size, time.perf_counter() - start)
        self._costs = costs

    def _learnt(self, task: "asyncio.Task[None]") -> None:
        self._learning = None
        self._needed = False
        self._pictures = 0
        if not task.cancelled():
            task.result()


def choose(
    candidates: Iterable[Coding], costs: Mapping[Coding, Cost], pace: Pace, slowness: float, raw_size: int
) -> Coding:
    """The coding that is worth it: raw, unless another saves `GAIN` seconds; from exact to lossy likewise.

    `slowness` is the pace's seconds for a byte; candidates come from the exact to the lossy ones.
    """
    best, takes = EXACT, slowness * raw_size
    if takes < CHEAP and pace.since_raw >= STALE:
        return EXACT  # to see how long it takes now
    for coding in candidates:
        cost = costs.get(coding)
        if cost is None or cost.size >= raw_size:
            continue
        # What has not decoded anything yet decodes as fast as this machine encodes.
        expected = slowness * cost.size + cost.seconds + (pace.decoding or cost.seconds)
        if expected <= takes - GAIN:
            best, takes = coding, expected
    return best


class Encoded:
    """One picture in as many codings as somebody asks for, each of them made once."""

    def __init__(self, image: np.ndarray) -> None:
        self._image = image
        self._made: dict[Coding, asyncio.Future[bytes]] = {}
        self._raw: bytes | None = None

    async def serialised(self, coding: Coding) -> tuple[Coding, bytes]:
        """The part of a request that has the picture; one that a codec makes no shorter is sent raw."""
        if coding != EXACT:
            made = self._made.get(coding)
            if made is None:
                loop = asyncio.get_running_loop()
                made = self._made[coding] = loop.run_in_executor(None, _part, self._image, coding)
            if not made.done():
                await asyncio.wait({made})  # who gives up waiting does not stop the others
            part = made.result()
            if len(part) < self._image.size:
                return coding, part
        if self._raw is None:
            self._raw = _part(self._image, EXACT)
        return EXACT, self._raw

    def size(self, coding: Coding) -> int:
        """The bytes of that part, 0 as long as it has not been made."""
        made = self._made.get(coding)
        done = made is not None and made.done() and not made.cancelled()
        return len(made.result() if made is not None and done else self._raw or b"")


def _part(image: np.ndarray, coding: Coding) -> bytes:
    return InferRequest(picture=encode(image, coding)).SerializeToString()


def _check(image: np.ndarray, spec: InputSpec) -> None:
    shape = (spec.height, spec.width, spec.channels)
    if image.shape != shape or image.dtype != np.uint8:
        raise UsageError(
            f"the bundle takes pictures uint8 {list(shape)}, not {image.dtype} {list(image.shape)}: "
            "edvit_tf.bundle.picture.prepare makes them"
        )
