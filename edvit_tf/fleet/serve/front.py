"""What every way in has in common: how many at once, from bytes to a picture, and the deadline."""

import asyncio
import os
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from edvit_tf.bundle.manifest import Manifest
from edvit_tf.bundle.sample import decode_sample
from edvit_tf.errors import BusyError, DeadlineError, EdvitError, UsageError
from edvit_tf.fleet.aggregator import Aggregator
from edvit_tf.fleet.answer import Answer
from edvit_tf.fleet.dispatch import DEFAULT_DEADLINE
from edvit_tf.fleet.serve.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Bounds:
    """Requests in flight, bytes of a picture's file, and seconds for an answer and at most for one.

    Raises:
        UsageError: one is not above 0, or the usual deadline is above the longest.
    """

    in_flight: int = 16
    picture_bytes: int = 7_000_000
    deadline: float = DEFAULT_DEADLINE
    longest_deadline: float = 60.0

    def __post_init__(self) -> None:
        if not (self.in_flight > 0 and self.picture_bytes > 0 and self.deadline > 0):
            raise UsageError("give bounds above 0")
        if self.deadline > self.longest_deadline:
            raise UsageError(f"the deadline is at most {self.longest_deadline:.0f} s, not {self.deadline}")


@dataclass(frozen=True, slots=True)
class Request:
    """One request: its id, by which way it came ("http", "grpc"), and when, on the monotonic clock."""

    id: str
    way: str
    began: float


@dataclass(frozen=True, slots=True)
class Result:
    """An answer, and what it is an answer from."""

    request: Request
    manifest: Manifest
    answer: Answer

    def to_json(self) -> dict[str, object]:
        """What `infer --json` gives, which bundle and request it was, and each device's part."""
        return {
            "request_id": self.request.id,
            "bundle": self.manifest.name,
            "bundle_version": self.manifest.version,
            **self.answer.to_json(),
            "devices": [part.to_json() for part in self.answer.devices],
        }


class Front:
    """Takes pictures for whichever aggregator `current` gives at the moment.

    Pictures are decoded in as many threads as there are processors: a picture may claim a lot of memory.
    """

    def __init__(self, current: Callable[[], Aggregator], bounds: Bounds, metrics: Metrics) -> None:
        self._current = current
        self.bounds = bounds
        self.metrics = metrics
        self._in_flight = 0
        self._stopping = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._decoders = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="decode")

    @property
    def aggregator(self) -> Aggregator:
        """Who answers at the moment."""
        return self._current()

    @property
    def stopping(self) -> bool:
        """Whether no request is taken any more."""
        return self._stopping

    @contextmanager
    def admitted(self, way: str) -> Iterator[Request]:
        """Be one of the requests in flight as long as the block lasts; what happens in it is counted.

        Raises:
            BusyError: there are too many (`busy`), or the aggregator is about to stop (`stopping`).
        """
        request = Request(secrets.token_hex(8), way, time.monotonic())
        try:
            self._check()
        except BusyError as error:
            self.metrics.refused(request.way, error.code)
            raise
        self._in_flight += 1
        self._idle.clear()
        self.metrics.in_flight(self._in_flight)
        try:
            yield request
        except EdvitError as error:
            self.metrics.refused(request.way, error.code)
            raise
        finally:
            self._in_flight -= 1
            self.metrics.in_flight(self._in_flight)
            if not self._in_flight:
                self._idle.set()

    def _check(self) -> None:
        if self._stopping:
            raise BusyError("the aggregator is about to stop: try again in a moment", code="stopping")
        if self._in_flight >= self.bounds.in_flight:
            raise BusyError(
                f"{self._in_flight} pictures are being answered already: try again in a second, or send "
                "fewer at a time"
            )

    async def classify(self, request: Request, data: bytes, deadline: float | None = None) -> Result:
        """Answer a picture (the bytes of its file) within `deadline` seconds from now.

        Raises:
            UsageError: the deadline is out of range.
            DataError: the bytes are no picture.
            DeadlineError: no sub-model answered in time.
        """
        seconds = self.bounds.deadline if deadline is None else deadline
        if not 0 < seconds <= self.bounds.longest_deadline:
            raise UsageError(f"the deadline must be above 0 and at most {self.bounds.longest_deadline:.0f} s")
        # A deploy may put another aggregator in its place while the picture is decoded.
        with self._current().held() as aggregator:
            result = await self._classify(aggregator, request, data, seconds)
        self.metrics.answered(request.way, result.answer, time.monotonic() - request.began)
        return result

    async def _classify(
        self, aggregator: Aggregator, request: Request, data: bytes, seconds: float
    ) -> Result:
        end = time.monotonic() + seconds
        manifest = aggregator.bundle.manifest
        decoding = asyncio.get_running_loop().run_in_executor(
            self._decoders, decode_sample, data, manifest.input
        )
        try:
            async with asyncio.timeout(seconds):
                image = await decoding
        except TimeoutError:
            raise DeadlineError(f"the picture was not decoded within {seconds:.3g} s") from None
        answer = await aggregator.classify(image, deadline=max(0.001, end - time.monotonic()))
        return Result(request, manifest, answer)

    async def stop(self, grace: float) -> None:
        """Take no more requests, and wait at most `grace` seconds for those in flight."""
        self._stopping = True
        try:
            async with asyncio.timeout(grace):
                await self._idle.wait()
        except TimeoutError:
            pass
        self._decoders.shutdown(wait=False, cancel_futures=True)
