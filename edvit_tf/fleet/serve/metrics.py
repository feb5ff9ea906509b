"""What an aggregator counts, as Prometheus reads it."""

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from edvit_tf.fleet.again import Again
from edvit_tf.fleet.answer import Answer
from edvit_tf.fleet.hello import DeviceStatus, State

MOST_CODES = 64
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0)


class Metrics:
    """One registry of its own; `rows` gives where each device stands when somebody asks."""

    def __init__(self, rows: Callable[[], Iterable[DeviceStatus]]) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._registry.register(_Devices(rows))
        self._requests = Counter(
            "edvit_requests",
            "Requests by way in and outcome: complete, partial, or the code of the error.",
            ["way", "outcome"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "edvit_request_seconds",
            "Seconds from a request to its answer.",
            ["way"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._in_flight = Gauge(
            "edvit_requests_in_flight", "Requests that are being answered.", registry=self._registry
        )
        self._device_seconds = Histogram(
            "edvit_device_seconds",
            "Seconds from asking a device to its answer.",
            ["device"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._device_failures = Counter(
            "edvit_device_failures",
            "Pictures that a device did not answer rightly, by the code of the error.",
            ["device", "code"],
            registry=self._registry,
        )
        self._device_bytes = Counter(
            "edvit_device_bytes",
            "Bytes of messages to a device and from it, by the codec of the picture.",
            ["device", "direction", "codec"],
            registry=self._registry,
        )
        self._codes: set[str] = set()
        self._moves = Counter(
            "edvit_moves", "Sub-models that went to another device.", registry=self._registry
        )
        self._again = Counter(
            "edvit_asked_again",
            "Devices that were asked again within an answer: hedge, retry, or refused by the budget.",
            ["what"],
            registry=self._registry,
        )
        for what in Again:
            self._again.labels(what.value)  # it is there before it happens
        self._paused = Gauge(
            "edvit_moves_paused",
            "1 while too many devices are lost to move anything.",
            registry=self._registry,
        )

    def in_flight(self, number: int) -> None:
        """So many requests are being answered."""
        self._in_flight.set(number)

    def refused(self, way: str, code: str) -> None:
        """A request ended in an error."""
        self._requests.labels(way, code).inc()

    def answered(self, way: str, answer: Answer, seconds: float) -> None:
        """A request ended in an answer."""
        self._requests.labels(way, "complete" if answer.complete else "partial").inc()
        self._seconds.labels(way).observe(seconds)
        for part in answer.devices:
            if part.error is None:
                self._device_seconds.labels(part.device).observe(part.milliseconds / 1000)
            else:
                self._device_failures.labels(part.device, self._known(part.error.code)).inc()
            if part.codec:
                self._device_bytes.labels(part.device, "sent", part.codec).inc(part.sent_bytes)
                self._device_bytes.labels(part.device, "received", part.codec).inc(part.received_bytes)

    def _known(self, code: str) -> str:
        """A code, or "other" for those that come after many: a device may make them up."""
        if code not in self._codes and len(self._codes) >= MOST_CODES:
            return "other"
        self._codes.add(code)
        return code

    def moved(self) -> None:
        """A sub-model went to another device."""
        self._moves.inc()

    def asked_again(self, what: Again) -> None:
        """A device was asked again within an answer, or would have been."""
        self._again.labels(what.value).inc()

    def paused(self, paused: bool) -> None:
        """Whether nothing is moved."""
        self._paused.set(paused)

    def text(self) -> bytes:
        """All of it, in Prometheus's text format."""
        return generate_latest(self._registry)


class _Devices(Collector):
    def __init__(self, rows: Callable[[], Iterable[DeviceStatus]]) -> None:
        self._rows = rows

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily(
            "edvit_device_state", "1 for the state that a device is in.", labels=["device", "name", "state"]
        )
        for row in self._rows():
            for state in State:
                family.add_metric([row.id, row.name, state.value], float(row.state == state.value))
        yield family
