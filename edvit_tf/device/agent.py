"""The device agent: open the store, serve what is in it, announce it, and stop cleanly when told to."""

import asyncio
import ipaddress
import logging
import os
import platform
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edvit_tf import __version__
from edvit_tf.device.advertise import advertisement
from edvit_tf.device.dial import check_dial, keep_dialled, keep_joining, places
from edvit_tf.device.engine import Runtime, installed_runtime
from edvit_tf.device.identity import Identity, load_or_make
from edvit_tf.device.install import Installer
from edvit_tf.device.journal import Journal
from edvit_tf.device.membership import Membership, Shown, load_membership, save_membership
from edvit_tf.device.pairing import About, PairingService
from edvit_tf.device.service import DeviceService, Facts
from edvit_tf.device.store import Store
from edvit_tf.errors import TrustError, UsageError
from edvit_tf.rpc.address import reachable
from edvit_tf.rpc.certificates import check_clock, utc_now
from edvit_tf.rpc.channel import add_device, check_free, serve_grpc
from edvit_tf.rpc.pairing import Token, new_code, read_code
from edvit_tf.rpc.pairing_channel import serve_pairing
from edvit_tf.rpc.tunnelled import TunnelServer
from edvit_tf.runtime.delegate import DELEGATES, find_accelerator

DEFAULT_PORT = 7434
EVERYWHERE = "0.0.0.0"  # noqa: S104 (strangers get no further than the handshake)
GRACE_SECONDS = 1.0
LARGEST_NAME = 63

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DeviceSettings:
    """How to run a device.

    `interface` is the IPv4 address of this machine to listen on, 0.0.0.0 for all of them. `port` 0 takes any
    free one. `memory_bytes` None gives half of the machine's memory. A device that is of no fleet yet joins
    one with `token`, or is adopted by the code that it shows. With `dial` a member listens nowhere, and
    serves over the connection that it opens to an aggregator: at "host:port", or where it is announced
    ("auto"). `delegate` names an accelerator; without it, or when it cannot be used, the processor computes.

    Raises:
        UsageError: for a value out of range.
    """

    name: str
    store: Path
    port: int = DEFAULT_PORT
    interface: str = EVERYWHERE
    memory_bytes: int | None = None
    token: Token | None = None
    dial: str = ""
    delegate: str = ""

    def __post_init__(self) -> None:
        if not self.name.isprintable() or not 1 <= len(self.name.encode()) <= LARGEST_NAME:
            raise UsageError(f"--name must be 1 to {LARGEST_NAME} bytes of printable text")
        if not 0 <= self.port <= 65535:
            raise UsageError(f"--port must be from 0 (any free one) to 65535, not {self.port}")
        if self.memory_bytes is not None and self.memory_bytes <= 0:
            raise UsageError("--memory-mb must be more than 0")
        try:
            ipaddress.IPv4Address(self.interface)
        except ValueError:
            raise UsageError(
                f"--interface must be an IPv4 address of this machine, for example 127.0.0.1 or 0.0.0.0 "
                f"(all of them), not {self.interface!r}"
            ) from None
        if self.delegate not in ("", *DELEGATES):
            raise UsageError(f"--delegate must be one of {', '.join(DELEGATES)}, not {self.delegate}")
        check_dial(self.dial)


@dataclass(frozen=True, slots=True)
class Ready:
    """A device that serves and is announced, or that dials out (`dials` says where) and has no port."""

    id: str
    name: str
    address: str
    port: int
    dials: str = ""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A device that waits to be paired at `address` and `port`; `code` is empty when it has a token."""

    id: str
    name: str
    address: str
    port: int
    code: str

    @property
    def link(self) -> str:
        """What the QR code says: the code, and each address with its port at which the device waits."""
        places = ",".join(f"{address}:{self.port}" for address in reachable(self.address))
        return f"edvit:pair?id={self.id}&address={places}&code={self.code}"


OnWaiting = Callable[[Waiting], None]


async def run_device(
    settings: DeviceSettings,
    on_ready: Callable[[Ready], None],
    *,
    on_waiting: OnWaiting = lambda _: None,
    runtime: Runtime | None = None,
) -> None:
    """Serve until SIGTERM.

    `on_waiting` is called by a device that has to be paired first, and `on_ready` once, when the device
    serves and has been announced.

    Raises:
        DeviceError: the store cannot be used.
        LinkError: the port is taken.
        KeyboardInterrupt: after a clean stop, when it was SIGINT that ended it.
    """
    stopped, reason = _catch_signals()
    store = Store(settings.store)
    journal = Journal()
    logging.getLogger().addHandler(journal)
    try:
        await _serve(settings, store, runtime, journal, stopped, on_ready, on_waiting)
    finally:
        logging.getLogger().removeHandler(journal)
        store.close()
    if signal.SIGINT in reason:
        raise KeyboardInterrupt


async def _serve(
    settings: DeviceSettings,
    store: Store,
    runtime: Runtime | None,
    journal: Journal,
    stopped: asyncio.Event,
    on_ready: Callable[[Ready], None],
    on_waiting: OnWaiting,
) -> None:
    identity = load_or_make(store)
    memory = settings.memory_bytes or _half_of_memory()
    accelerator = find_accelerator(settings.delegate)
    if settings.delegate and not accelerator.name:
        log.warning("NO ACCELERATOR: %s. The processor computes everything.", accelerator.reason)
    runtime = runtime or installed_runtime(accelerator.library)
    facts = Facts(
        identity.id,
        settings.name,
        runtime.name,
        memory,
        accelerator=accelerator.name,
        accelerator_reason=accelerator.reason,
        targets=("any", "cpu", *filter(None, [accelerator.target])),
        kind=f"{platform.machine()} {platform.system()}",
        cores=os.cpu_count() or 1,
    )
    membership = load_membership(store)
    if membership is None:
        if not settings.dial:
            check_free(settings.interface, settings.port)
        membership = await _become_member(settings, store, identity, facts, stopped, on_waiting)
    if membership is None:
        return
    _say_if_not_valid(membership)
    installer = Installer(store, runtime, memory, membership.signer)
    service = DeviceService(facts, await installer.restore(), installer)
    held = [holding.submodel for holding in service.shelf.first.holdings()]
    log.info(
        "%s has started: edvit-tf %s, %s, with %s",
        facts.name,
        __version__,
        facts.runtime,
        ", ".join(held) or "no sub-model",
    )
    shown = Shown(store, identity, membership)
    try:
        if settings.dial:
            await _dial_out(settings, service, shown, journal, stopped, on_ready)
        else:
            await _listen(settings, service, shown, journal, stopped, on_ready)
    finally:
        service.close()


async def _listen(
    settings: DeviceSettings,
    service: DeviceService,
    shown: Shown,
    journal: Journal,
    stopped: asyncio.Event,
    on_ready: Callable[[Ready], None],
) -> None:
    facts = service.facts
    server = await serve_grpc(
        service, settings.interface, settings.port, shown.credentials, shown.renew, journal.read
    )
    try:
        async with advertisement(facts, settings.interface, server.port):
            if not stopped.is_set():
                on_ready(Ready(facts.id, facts.name, settings.interface, server.port))
            await stopped.wait()
    finally:
        await server.stop(GRACE_SECONDS)


async def _dial_out(
    settings: DeviceSettings,
    service: DeviceService,
    shown: Shown,
    journal: Journal,
    stopped: asyncio.Event,
    on_ready: Callable[[Ready], None],
) -> None:
    answering = TunnelServer()
    add_device(answering, service, shown.renew, journal.read)
    where = places(settings.dial, shown.fleet)
    dialling = asyncio.create_task(keep_dialled(where, shown.credentials, answering.answer))
    try:
        if not stopped.is_set():
            on_ready(Ready(service.facts.id, settings.name, "", 0, settings.dial))
        await stopped.wait()
    finally:
        dialling.cancel()
        await asyncio.gather(dialling, return_exceptions=True)


async def _become_member(
    settings: DeviceSettings,
    store: Store,
    identity: Identity,
    facts: Facts,
    stopped: asyncio.Event,
    on_waiting: OnWaiting,
) -> Membership | None:
    """Wait on a port of its own until an aggregator has proved itself; None when told to stop before."""
    token = settings.token
    code = "" if token else new_code()
    joined: list[Membership] = []
    over = asyncio.Event()

    def on_member(membership: Membership) -> None:
        save_membership(store, membership)
        joined.append(membership)
        over.set()

    about = About(
        name=settings.name,
        runtime=facts.runtime,
        kind=facts.kind,
        memory_bytes=facts.memory_bytes,
        cores=facts.cores,
    )
    secret = token.secret if token else read_code(code)
    service = PairingService(identity, about, secret, on_member, token=token)
    server = await serve_pairing(service.pair, settings.interface)
    try:
        async with advertisement(facts, settings.interface, server.port, pair=server.port):
            on_waiting(Waiting(identity.id, settings.name, settings.interface, server.port, code))
            waits = [asyncio.create_task(event.wait()) for event in (over, stopped)]
            joining = asyncio.create_task(
                keep_joining(places(settings.dial, token.fingerprint), service.pair, over)
                if settings.dial and token
                else over.wait()
            )
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if joined:
                await asyncio.wait({joining}, timeout=GRACE_SECONDS)
            for task in (joining, *waits):
                task.cancel()
            await asyncio.gather(joining, *waits, return_exceptions=True)
    finally:
        await server.stop(GRACE_SECONDS)
    return joined[0] if joined else None


def _say_if_not_valid(membership: Membership) -> None:
    """Nobody gets through a handshake while the clock is wrong; it may be set in a minute."""
    try:
        check_clock(membership.certificate, "this device's certificate", utc_now())
    except TrustError as error:
        log.warning("%s", error.message)


def _catch_signals() -> tuple[asyncio.Event, list[int]]:
    stopped = asyncio.Event()
    reason: list[int] = []

    def stop(number: int) -> None:
        reason.append(number)
        stopped.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
    return stopped, reason


def _half_of_memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
