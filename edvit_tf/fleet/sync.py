"""The aggregator for code that does not use asyncio: the same names, wrapped once.

A thread runs the event loop, so that devices are watched between calls.
"""

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np

from edvit_tf.bundle.reader import Bundle
from edvit_tf.fleet import aggregator as asynchronous
from edvit_tf.fleet.answer import Answer
from edvit_tf.fleet.deploy import Deployment
from edvit_tf.fleet.deploy import deploy as deploy_async
from edvit_tf.fleet.discover import Announced
from edvit_tf.fleet.discover import discover as discover_async
from edvit_tf.fleet.dispatch import DEFAULT_DEADLINE
from edvit_tf.fleet.hello import DeviceStatus
from edvit_tf.fleet.member import Connect
from edvit_tf.fleet.transfer import OnProgress

T = TypeVar("T")


def discover(timeout: float = 3.0, *, expected: int | None = None) -> list[Announced]:
    """Do what `edvit_tf.fleet.discover` does."""
    return asyncio.run(discover_async(timeout, expected=expected))


def deploy(
    bundle: Bundle,
    devices: Sequence[Announced],
    *,
    connect: Connect,
    on_progress: OnProgress | None = None,
) -> Deployment:
    """Do what `edvit_tf.fleet.deploy` does."""
    return asyncio.run(deploy_async(bundle, devices, connect=connect, on_progress=on_progress))


class Aggregator:
    """Does what `edvit_tf.fleet.Aggregator` does, as a plain context manager."""

    def __init__(
        self,
        bundle: Bundle,
        deployment: Deployment,
        *,
        connect: Connect,
        deadline: float = DEFAULT_DEADLINE,
    ) -> None:
        self._connect = connect
        self._arguments = bundle, deployment
        self._deadline = deadline

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="aggregator", daemon=True)
        self._thread.start()
        try:
            self._inner = self._run(self._open())
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._run(self._inner.__aexit__(kind, error, trace))
        finally:
            self._stop()

    def classify(self, image: np.ndarray, *, deadline: float | None = None) -> Answer:
        """Answer one picture, uint8 [height, width, channels]."""
        return self._run(self._inner.classify(image, deadline=deadline))

    def complete(self, timeout: float) -> bool:
        """Wait until every device is up, at most `timeout` seconds; tell whether they are."""
        return self._run(self._inner.complete(timeout))

    def status(self) -> tuple[DeviceStatus, ...]:
        """Where each device stands."""
        return self._run(self._status())

    async def _open(self) -> asynchronous.Aggregator:
        inner = asynchronous.Aggregator(*self._arguments, connect=self._connect, deadline=self._deadline)
        return await inner.__aenter__()

    async def _status(self) -> tuple[DeviceStatus, ...]:
        return self._inner.status()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
