"""One device of the fleet: connect, keep watch, and come back after a failure.

Connect → hello → prepare → up → heartbeat; a connection that broke, whoever notices it, ends the circle, and
it begins again after a growing, jittered wait. zeroconf shortens the wait and knows new addresses. What the
link shows decides where the device stands (`edvit_tf.fleet.liveness`).
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from random import Random

from edvit_tf.errors import DeadlineError, EdvitError
from edvit_tf.fleet.clones import cloned, is_another
from edvit_tf.fleet.discover import Announced
from edvit_tf.fleet.hello import DeviceStatus, State, say_hello, status_of
from edvit_tf.fleet.liveness import DEFAULT_LIMITS, Limits, Standing
from edvit_tf.fleet.pace import Pace
from edvit_tf.rpc.backoff import backoff
from edvit_tf.rpc.edvit_pb2 import HelloReply
from edvit_tf.rpc.link import Link
from edvit_tf.rpc.text import clean_text

# Address and id ("" when only the address is known) to a link that has proved the id.
Connect = Callable[[str, str], Link]
Prepare = Callable[[Link, HelloReply], Awaitable[HelloReply]]

MOST_ADDRESSES = 4
BUSY = "device.busy"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds, unless the name says otherwise.

    A device that stops answering is down after at most (heartbeat + hello) · `limits.misses`.
    """

    hello: float = 1.0
    heartbeat: float = 1.0
    limits: Limits = DEFAULT_LIMITS
    first_delay: float = 0.1
    longest_delay: float = 3.0
    longest_refused: float = 30.0  # a device that refuses is not sent the same megabytes every few seconds
    growth: float = 1.6
    jitter: float = 0.2  # fraction
    stable: float = 5.0  # up for so long, and the next failure starts again with `first_delay`

    def delay(self, failures: int, random: Random, *, refused: bool = False) -> float:
        """How long to wait after so many failures in a row."""
        longest = self.longest_refused if refused else self.longest_delay
        return backoff(
            failures,
            random,
            first=self.first_delay,
            longest=longest,
            growth=self.growth,
            jitter=self.jitter,
        )


class Member:
    """A device and where it stands; `run` does not end until it is cancelled.

    `prepare` is called with the link after each hello: it sees to it that the device holds what it should,
    and returns the hello that says so. `on_change` is called whenever the state is another one. `codec` is
    the one in which it was last sent a picture, `sent_bytes` what it was sent, `pace` how fast its link is.
    """

    def __init__(
        self,
        device: Announced,
        *,
        connect: Connect,
        prepare: Prepare,
        timing: Timing | None = None,
        random: Random | None = None,
        clock: Callable[[], float] = time.monotonic,
        on_change: Callable[["Member"], None] = lambda _: None,
    ) -> None:
        self._device = device
        self._connect = connect
        self._prepare = prepare
        self._timing = timing or Timing()
        self._random = random or Random()  # noqa: S311 (jitter is no secret)
        self._clock = clock
        self._addresses = [device.address]
        self._attempt = 0
        self._hello: HelloReply | None = None
        self._link: Link | None = None
        self._trouble = asyncio.Event()
        self._hint = asyncio.Event()
        self._changed = asyncio.Event()
        self._on_change = on_change
        self._refused: set[str] = set()
        self.pace = Pace()
        self.codec = ""
        self.sent_bytes = 0
        self.standing = Standing(State.CONNECTING, "", clock(), limits=self._timing.limits)

    @property
    def id(self) -> str:
        """The device's id, empty as long as only its address is known."""
        return self._hello.id if self._hello else self._device.id

    @property
    def name(self) -> str:
        """What the device calls itself."""
        return clean_text(self._hello.name if self._hello else "") or self._device.name

    @property
    def state(self) -> State:
        """Where the device stands."""
        return self.standing.state

    @property
    def reason(self) -> str:
        """Why it stands there."""
        return self.standing.reason

    @property
    def hello(self) -> HelloReply | None:
        """What the device last said of itself."""
        return self._hello

    @property
    def link(self) -> Link | None:
        """The link while there is one."""
        return self._link if self.standing.connected else None

    @property
    def asked(self) -> Link | None:
        """The link while the device should be sent pictures."""
        return self._link if self.standing.asks(self._clock()) else None

    def status(self) -> DeviceStatus:
        """Where the device stands, with what it last said of itself."""
        since = time.time() - (self._clock() - self.standing.since)
        row = status_of(self._device, self.state, self.reason, self._hello, since)
        return replace(row, codec=self.codec, sent_bytes=self.sent_bytes)

    async def ready(self) -> None:
        """Wait until the device should be sent pictures."""
        while self.asked is None:
            rest = self.standing.rests_until - self._clock()
            await _happens(self._changed, rest if rest > 0 else None)

    async def changed(self) -> None:
        """Wait for the next change of state."""
        await self._changed.wait()

    def seen(self, device: Announced) -> None:
        """Take a hint: the device has been announced, perhaps at another address."""
        if device.address != self._addresses[0]:
            others = [address for address in self._addresses if address != device.address]
            self._addresses = [device.address, *others][:MOST_ADDRESSES]
        if not self.standing.connected:
            self._attempt = 0
            self._hint.set()

    def report(self, link: Link, error: EdvitError) -> None:
        """Take word of a picture that `link` did not answer: the device is not asked again at once."""
        if link is not self._link:
            return
        if isinstance(error, DeadlineError) or error.code == BUSY:
            self._stand(self.standing.late(error, self._clock()))
        else:
            self._fail(error)
        self._trouble.set()

    def answered(self, link: Link, submodels: Sequence[str], seconds: float) -> None:
        """Take word of a picture that was answered; `seconds` is what the interpreter took at most."""
        if link is self._link:
            measured = self._measured(submodels)
            self._stand(self.standing.answered(seconds, measured, self._clock()))

    @property
    def codecs(self) -> tuple[str, ...]:
        """The codecs beside raw in which it takes pictures: it says so, and has refused none."""
        return tuple(
            codec for codec in (self._hello.codecs if self._hello else ()) if codec not in self._refused
        )

    def refuses(self, codec: str) -> None:
        """Take word of a picture that it could not decode: it is sent none in this codec any more."""
        log.warning("%s could not decode a picture as %s and is sent none any more", self.name, codec)
        self._refused.add(codec)

    def sent(self, codec: str, size: int) -> None:
        """Take word of a picture that went to the device, whatever became of it."""
        self.codec = codec
        self.sent_bytes += size

    def carried(self, link: Link, size: int, seconds: float, *, raw: bool, decoding: float = 0.0) -> None:
        """Take word of how long a picture was under way, beside the work on it; `size` is in bytes."""
        if link is self._link:
            pace = self.pace
            self.pace = pace.sent_raw(size, seconds) if raw else pace.sent_coded(size, seconds, decoding)

    def refresh(self, hello: HelloReply) -> None:
        """Take what the device says of itself now."""
        self._hello = hello

    def _measured(self, submodels: Sequence[str]) -> float:
        """Seconds that the slowest of these took where it proved itself, 0 when one is not known."""
        holdings = self._hello.holdings if self._hello else ()
        took = [each.microseconds for each in holdings if each.submodel in submodels]
        known = bool(took) and len(took) == len(submodels) and all(took)
        return max(took) / 1e6 if known else 0.0

    async def run(self) -> None:
        """Keep the device connected for ever."""
        while True:
            # A second address may be an old one or an impostor's: each gets its turn.
            address = self._addresses[self._attempt % len(self._addresses)]
            self._attempt += 1
            self._hint.clear()
            await self._session(address)
            await _happens(self._hint, self._delay())

    def _delay(self) -> float:
        return self._timing.delay(self._attempt, self._random, refused=self.state is State.REFUSED)

    async def _session(self, address: str) -> None:
        link = self._connect(address, self._device.id)
        began: float | None = None
        try:
            hello = await say_hello(link, self._device.id, timeout=self._timing.hello)
            await self._check_alone(link, hello)
            self._hello = await self._prepare(link, hello)
            began = self._clock()
            self._device = Announced(address, hello.id, hello.name)
            self._addresses = [address]
            self._trouble.clear()
            self._link = link
            self._stand(self.standing.reached(self._clock()))
            await self._watch(link)
        except EdvitError as error:
            self._fail(error)
        finally:
            self._link = None
            if began is not None and self._clock() - began >= self._timing.stable:
                self._attempt = 0
            await link.close()

    async def _watch(self, link: Link) -> None:
        """Say hello again and again; return when the connection broke or the device is down."""
        while True:
            await _happens(self._trouble, self._timing.heartbeat)
            self._trouble.clear()
            if self._link is not link:
                return
            start = self._clock()
            try:
                self._hello = await say_hello(link, self._device.id, timeout=self._timing.hello)
            except DeadlineError as error:
                self._stand(self.standing.missed(error, self._clock()))
            else:
                took = self._clock() - start
                self.pace = self.pace.beat(took)
                self._stand(self.standing.beat(took, self._clock()))
                await self._check_alone(link, self._hello)
            if not self.standing.connected:
                return

    async def _check_alone(self, link: Link, hello: HelloReply) -> None:
        """Hold the other addresses at which this device was announced against the one that answered.

        Raises:
            DeviceError: its key answers at another one too, from another process (`device.cloned`).
        """
        others = [address for address in self._addresses if address != link.address]
        # All at once: whoever announces addresses where nothing answers must not hold up the heartbeat.
        found = await asyncio.gather(*(self._another(address, hello) for address in others))
        if copies := [address for address, another in zip(others, found, strict=True) if another]:
            # It may only have moved: then this link is dead.
            await say_hello(link, hello.id, timeout=self._timing.hello)
            raise cloned(hello, (link.address, *copies))
        self._addresses = [address for address in self._addresses if address not in others]

    async def _another(self, address: str, hello: HelloReply) -> bool:
        link = self._connect(address, hello.id)
        try:
            return await is_another(link, hello)
        finally:
            await link.close()

    def _fail(self, error: EdvitError) -> None:
        self._link = None
        self._stand(self.standing.failed(error, self._clock()))

    def _stand(self, standing: Standing) -> None:
        before, self.standing = self.standing, standing
        if standing.state is not before.state:
            reason = standing.reason and f": {standing.reason}"
            log.info("%s is %s%s", self.name or self._addresses[0], standing.state.value, reason)
            self._on_change(self)
        if standing != before:
            self._changed.set()
            self._changed = asyncio.Event()


async def _happens(event: asyncio.Event, seconds: float | None) -> bool:
    """Wait for an event for so long (None: for ever); tell whether it came."""
    # Not asyncio.wait_for: until Python 3.12 it loses a cancellation that comes together with the event.
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
