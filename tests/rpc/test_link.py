"""What every link promises, in this process and over a socket."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from edvit_tf.errors import DeadlineError, DeviceError, EdvitError, LinkError, ProtocolError, UsageError
from edvit_tf.rpc.address import Address
from edvit_tf.rpc.aggregator_channel import serve_aggregator
from edvit_tf.rpc.channel import MESSAGE_BYTES, GrpcLink, add_device, check_free, serve_grpc
from edvit_tf.rpc.edvit_pb2 import (
    ClassifyReply,
    ClassifyRequest,
    HelloRequest,
    InferReply,
    InferRequest,
    InstallReply,
    InstallRequest,
    Picture,
)
from edvit_tf.rpc.inward import dial, serve_inward
from edvit_tf.rpc.link import PROTOCOL, InProcessLink, Link, check_protocol
from edvit_tf.rpc.relay import RelayedLink
from edvit_tf.rpc.tunnel import Tunnel
from edvit_tf.rpc.tunnelled import TunnelledLink, TunnelServer
from tests.rpc.fleet import TestFleet
from tests.rpc.handlers import Echo

Opening = Callable[[Echo], AbstractAsyncContextManager[Link]]


@asynccontextmanager
async def in_process(handler: Echo) -> AsyncIterator[Link]:
    yield InProcessLink(handler)


@asynccontextmanager
async def over_grpc(handler: Echo) -> AsyncIterator[Link]:
    fleet = TestFleet()
    device_id, credentials = fleet.device()
    server = await serve_grpc(handler, "127.0.0.1", 0, lambda: credentials)
    link = GrpcLink(f"127.0.0.1:{server.port}", fleet.aggregator(), device_id)
    try:
        yield link
    finally:
        await link.close()
        await server.stop(0)


@asynccontextmanager
async def dialled_in(handler: Echo) -> AsyncIterator[Link]:
    async with dialling(handler) as (_, tunnel):
        link = TunnelledLink("dialled", tunnel)
        try:
            yield link
        finally:
            await link.close()


@asynccontextmanager
async def relayed(handler: Echo) -> AsyncIterator[Link]:
    """As another program of the owner reaches a device that has dialled in at the aggregator."""
    async with dialling(handler) as (fleet, tunnel):

        def tunnel_to(device: str) -> Tunnel:
            return tunnel if device == tunnel.peer else Tunnel.over("it has not dialled in")

        async def nothing(request: ClassifyRequest) -> ClassifyReply:
            raise UsageError(f"no pictures here: {len(request.picture)}")

        shown = fleet.aggregator()
        server = await serve_aggregator(nothing, Address("127.0.0.1", 0), lambda: shown, tunnel_to)
        link = RelayedLink("dialled", f"127.0.0.1:{server.port}", fleet.aggregator(), tunnel.peer)
        try:
            yield link
        finally:
            await link.close()
            await server.stop(0)


@asynccontextmanager
async def dialling(handler: Echo) -> AsyncIterator[tuple[TestFleet, Tunnel]]:
    """A device that has dialled in: its fleet, and the tunnel to it."""
    fleet = TestFleet()
    device_id, credentials = fleet.device()
    handler.id = device_id
    there: asyncio.Future[Tunnel] = asyncio.get_running_loop().create_future()

    @contextlib.contextmanager
    def welcome(origin: str, tunnel: Tunnel) -> Iterator[None]:
        assert origin.startswith("127.0.0.1:")
        there.set_result(tunnel)
        yield

    shown = fleet.aggregator()
    server = await serve_inward(welcome, Address("127.0.0.1", 0), lambda: shown)
    answering = TunnelServer()
    add_device(answering, handler)
    calling = asyncio.create_task(
        dial(f"127.0.0.1:{server.port}", credentials, answering.answer, lambda: None)
    )
    tunnel = await there
    assert tunnel.peer == device_id
    try:
        yield fleet, tunnel
    finally:
        calling.cancel()
        await asyncio.gather(calling, return_exceptions=True)
        await server.stop(0)


@pytest.fixture(params=[in_process, over_grpc, dialled_in, relayed])
def opening(request: pytest.FixtureRequest) -> Opening:
    made: Opening = request.param
    return made


over_a_network = pytest.mark.parametrize("opening", [over_grpc, dialled_in, relayed])


async def chunks(number: int) -> AsyncIterator[InstallRequest]:
    for _ in range(number):
        yield InstallRequest(chunk=b"x" * 1000)


async def test_every_call_arrives(opening: Opening) -> None:
    async with opening(Echo()) as link:
        hello = await link.hello(HelloRequest(software="1.2"), timeout=5)
        reply = await link.infer(InferRequest(request_id="q", bundle_version=3), timeout=5)
        steps = [(step.step, step.received_bytes) async for step in link.install(chunks(2), timeout=5)]
        measured = [step.step async for step in link.measure(chunks(1), timeout=5)]
    assert hello.name == "1.2"
    assert (reply.request_id, reply.bundle_version) == ("q", 3)
    assert steps == [
        (InstallReply.RECEIVING, 1000),
        (InstallReply.RECEIVING, 2000),
        (InstallReply.SERVING, 2000),
    ]
    assert measured == [InstallReply.RECEIVING, InstallReply.MEASURED]


async def test_a_late_answer_is_a_deadline_error(opening: Opening) -> None:
    async with opening(Echo(delay=5)) as link:
        with pytest.raises(DeadlineError, match="did not answer within"):
            await link.hello(HelloRequest(), timeout=0.05)
        with pytest.raises(DeadlineError):
            await link.infer(InferRequest(), timeout=0.05)
        with pytest.raises(DeadlineError):
            async for _ in link.install(chunks(1), timeout=0.05):
                pass


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (DeviceError("too large", code="device.memory"), DeviceError),
        (ProtocolError("update it"), ProtocolError),
    ],
)
async def test_a_refusal_arrives_with_its_sentence_and_code(
    opening: Opening, error: EdvitError, kind: type[EdvitError]
) -> None:
    async with opening(Echo(error=error)) as link:
        with pytest.raises(kind) as caught:
            await link.infer(InferRequest(), timeout=5)
        assert type(caught.value) is kind
        assert (caught.value.message, caught.value.code) == (error.message, error.code)
        with pytest.raises(kind, match=error.message):
            await link.hello(HelloRequest(), timeout=5)


async def test_an_installation_that_is_given_up_ends_on_the_device_too(opening: Opening) -> None:
    handler = Echo(delay=0.01)
    async with opening(handler) as link:
        replies = link.install(chunks(1000), timeout=30)
        async with contextlib.aclosing(replies):
            await anext(replies)
        for _ in range(100):
            if handler.ended:
                break
            await asyncio.sleep(0.02)
        assert handler.ended
    assert handler.received < 1000 * 1000


async def test_nobody_there_is_a_link_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    link = GrpcLink(f"127.0.0.1:{port}", TestFleet().aggregator())
    with pytest.raises(LinkError, match="cannot be reached") as caught:
        await link.hello(HelloRequest(), timeout=5)
    assert not isinstance(caught.value, DeadlineError)
    await link.close()


@over_a_network
async def test_a_bug_in_a_device_is_a_device_error(opening: Opening) -> None:
    class Broken(Echo):
        async def infer(self, request: InferRequest) -> InferReply:
            raise ZeroDivisionError(request.request_id)

    async with opening(Broken()) as link:
        with pytest.raises(DeviceError, match="failed"):
            await link.infer(InferRequest(), timeout=5)


@over_a_network
async def test_a_message_beyond_the_limit_is_refused(opening: Opening) -> None:
    picture = Picture(data=bytes(MESSAGE_BYTES + 1))
    async with opening(Echo()) as link:
        with pytest.raises(DeviceError, match="larger than max"):
            await link.infer(InferRequest(picture=picture), timeout=5)
        assert (await link.infer(InferRequest(request_id="q"), timeout=5)).request_id == "q"


@over_a_network
async def test_a_closed_link_ends_its_calls(opening: Opening) -> None:
    async with opening(Echo(delay=10)) as link:
        call = asyncio.create_task(link.infer(InferRequest(), timeout=30))
        await asyncio.sleep(0.1)
        await link.close()
        with pytest.raises(LinkError, match="was closed"):
            await asyncio.wait_for(call, 2)
        with pytest.raises(LinkError, match="was closed"):
            await link.hello(HelloRequest(), timeout=5)
        with pytest.raises(LinkError, match="was closed"):
            await anext(link.install(chunks(1), timeout=5))
        with pytest.raises(LinkError, match="was closed"):
            await link.infer(InferRequest(), timeout=5)


async def test_two_servers_cannot_share_a_port() -> None:
    _, credentials = TestFleet().device()
    first = await serve_grpc(Echo(), "127.0.0.1", 0, lambda: credentials)
    with pytest.raises(LinkError, match="choose another --port") as caught:
        await serve_grpc(Echo(), "127.0.0.1", first.port, lambda: credentials)
    assert caught.value.code == "link.port"
    with pytest.raises(LinkError, match="choose another --port"):
        check_free("127.0.0.1", first.port)
    await first.stop(0)
    check_free("127.0.0.1", first.port)


def test_this_protocol_and_the_one_before_are_accepted() -> None:
    check_protocol(PROTOCOL, "the device")
    check_protocol(PROTOCOL - 1, "the device")
    with pytest.raises(ProtocolError, match="update edvit-tf on this side"):
        check_protocol(PROTOCOL + 1, "the device")
    with pytest.raises(ProtocolError, match="update edvit-tf on the device"):
        check_protocol(PROTOCOL - 2, "the device")
