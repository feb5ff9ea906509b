"""The aggregator as a process: hold the fleet, keep it, listen, and stop when told to."""

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from edvit_tf.fleet.announce import inward_announcement
from edvit_tf.fleet.hold import Running, hold
from edvit_tf.fleet.inward import Inward
from edvit_tf.fleet.joining import keep_joining_open
from edvit_tf.fleet.keeper import Keeper
from edvit_tf.fleet.member import Timing
from edvit_tf.fleet.messages import reply_of
from edvit_tf.fleet.renew import Keyring, keep_renewed
from edvit_tf.fleet.serve.front import Bounds, Front
from edvit_tf.fleet.serve.http import http_application
from edvit_tf.fleet.serve.listen import HttpPort
from edvit_tf.fleet.serve.metrics import Metrics
from edvit_tf.fleet.state import FleetState
from edvit_tf.fleet.wire import DEFAULT_WIRE, WireSettings
from edvit_tf.rpc.address import Address
from edvit_tf.rpc.aggregator_channel import Classify, serve_aggregator
from edvit_tf.rpc.certificates import fingerprint
from edvit_tf.rpc.edvit_pb2 import ClassifyReply, ClassifyRequest
from edvit_tf.rpc.inward import serve_inward

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """How to run an aggregator: the fleet's folder, where to listen, what is bounded.

    `passphrase` opens the fleet's keys. `browse`: listen for devices that announce themselves. `wire`: in
    which codec devices are sent pictures. `inward`: where to wait for devices that dial in, None for nowhere.
    """

    folder: Path
    http: Address
    grpc: Address
    bounds: Bounds
    passphrase: str = ""
    browse: bool = True
    timing: Timing | None = None
    wire: WireSettings = DEFAULT_WIRE
    inward: Address | None = None


async def serve(settings: ServeSettings, on_ready: Callable[[Running], None]) -> None:
    """Answer until SIGTERM; then take no more requests, and end those in flight by their deadline.

    `on_ready` is called once, when all ports are open.

    Raises:
        UsageError: `state.held`: another process is the aggregator; `state.missing`: nothing is deployed.
        TrustError: the fleet's keys cannot be used.
        LinkError: a port is taken.
        KeyboardInterrupt: after a clean stop, when it was SIGINT that ended it.
    """
    stopped, reason = _catch_signals()
    with hold(settings.folder) as holding, FleetState(settings.folder) as state:
        inward = Inward()
        inward.admit([device.id for device in state.devices()])
        keyring = Keyring(settings.folder, settings.passphrase, inward=inward)
        metrics = Metrics(lambda: keeper.aggregator.status())
        keeper = Keeper(
            state,
            keyring.connect,
            deadline=settings.bounds.deadline,
            browse=settings.browse,
            inward=inward,
            timing=settings.timing,
            on_move=metrics.moved,
            on_pause=metrics.paused,
            wire=settings.wire,
            on_again=metrics.asked_again,
        )
        front = Front(lambda: keeper.aggregator, settings.bounds, metrics)
        async with _inward_port(settings.inward, inward, keyring) as dialled, keeper:
            http = HttpPort(http_application(front, loopback=settings.http.loopback), settings.http)
            grpc = await serve_aggregator(
                _over_grpc(front), settings.grpc, lambda: keyring.keys.credentials, inward.tunnel_to
            )
            renewing = asyncio.create_task(
                keep_renewed(
                    keyring, lambda: keeper.aggregator.status(), lambda text: log.warning("%s", text)
                )
            )
            http.open()
            grpc_address = replace(settings.grpc, port=grpc.port)
            running = Running(os.getpid(), str(http.address), str(grpc_address), dialled)
            holding.say(running)
            state.note(f"the aggregator (process {running.process}) has started")
            where = {"http": running.http, "grpc": running.grpc, "inward": running.inward}
            log.info("ready", extra={"fields": where})
            on_ready(running)
            await stopped.wait()
            log.info("stopping")
            renewing.cancel()
            await front.stop(settings.bounds.longest_deadline)
            await asyncio.gather(http.close(), grpc.stop(1.0))
        state.note(f"the aggregator (process {running.process}) has stopped")
    if signal.SIGINT in reason:
        raise KeyboardInterrupt


@asynccontextmanager
async def _inward_port(address: Address | None, inward: Inward, keyring: Keyring) -> AsyncIterator[str]:
    """Where devices can dial in, empty when nowhere."""
    if address is None:
        yield ""
        return
    server = await serve_inward(inward.welcome, address, lambda: keyring.keys.credentials)
    bound = replace(address, port=server.port)
    joining = asyncio.create_task(keep_joining_open(bound, keyring.folder, lambda: keyring.keys))
    fleet = fingerprint(keyring.keys.authority.certificate)
    try:
        async with inward_announcement(fleet, bound):
            yield str(bound)
    finally:
        joining.cancel()
        await asyncio.gather(joining, return_exceptions=True)
        await server.stop(0)


def _over_grpc(front: Front) -> Classify:
    async def classify(request: ClassifyRequest) -> ClassifyReply:
        with front.admitted("grpc") as admitted:
            seconds = request.milliseconds / 1000 or None
            result = await front.classify(admitted, request.picture, seconds)
        return reply_of(result.answer, admitted.id, result.manifest)

    return classify


def _catch_signals() -> tuple[asyncio.Event, list[int]]:
    stopped = asyncio.Event()
    reason: list[int] = []

    def stop(number: int) -> None:
        reason.append(number)
        stopped.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop, number)
    return stopped, reason
