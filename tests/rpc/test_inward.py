"""Who may dial in and who may not: strangers, other devices, impostors, floods, and devices gone wrong."""

import asyncio
import contextlib
import socket
import ssl
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edvit_tf.errors import EdvitError, LinkError, ProtocolError, TrustError, UsageError
from edvit_tf.fleet import Announced, State
from edvit_tf.fleet.inward import Inward
from edvit_tf.fleet.member import Member
from edvit_tf.rpc.address import Address
from edvit_tf.rpc.aggregator_channel import serve_aggregator
from edvit_tf.rpc.certificates import AGGREGATOR, device_name, device_of
from edvit_tf.rpc.channel import HANDSHAKE_SECONDS, add_device
from edvit_tf.rpc.edvit_pb2 import (
    ClassifyReply,
    ClassifyRequest,
    Frame,
    HelloReply,
    HelloRequest,
    Outcome,
)
from edvit_tf.rpc.inward import IDLE_SECONDS, MOST_CONNECTIONS, dial, serve_inward
from edvit_tf.rpc.link import Link
from edvit_tf.rpc.relay import RelayedLink
from edvit_tf.rpc.tls import Credentials, channel_credentials
from edvit_tf.rpc.tunnel import MOST_CALLS, MOST_FRAMES, WINDOW, Exchange, Tunnel
from edvit_tf.rpc.tunnelled import TunnelServer
from tests.fleet.test_member import until
from tests.rpc.fleet import TestFleet
from tests.rpc.handlers import Echo
from tests.rpc.silent import CONNECTIONS, slow_loris
from tests.rpc.test_tls import HOST, tls


@asynccontextmanager
async def waiting(fleet: TestFleet, *admitted: str) -> AsyncIterator[tuple[Inward, str]]:
    """An aggregator's port for these devices, and its address."""
    inward = Inward()
    inward.admit(admitted)
    shown = fleet.aggregator()  # one for all handshakes: a new one for each would end the process
    server = await serve_inward(inward.welcome, Address(HOST, 0), lambda: shown)
    try:
        yield inward, f"{HOST}:{server.port}"
    finally:
        await server.stop(0)


@contextlib.contextmanager
def calling(
    address: str, credentials: Credentials, handler: Echo, answering: TunnelServer | None = None
) -> Iterator["asyncio.Task[None]"]:
    if answering is None:
        answering = TunnelServer()
        add_device(answering, handler)
    task = asyncio.create_task(dial(address, credentials, answering.answer, lambda: None))
    try:
        yield task
    finally:
        task.cancel()


async def there(inward: Inward, number: int = 1) -> None:
    async with asyncio.timeout(5):
        while len(inward.present()) != number:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def refusal(address: str, credentials: Credentials) -> EdvitError:
    with calling(address, credentials, Echo()) as task, pytest.raises(EdvitError) as caught:
        await asyncio.wait_for(task, 10)
    return caught.value


async def test_a_device_that_dialled_is_asked_and_gone_when_it_hangs_up() -> None:
    fleet = TestFleet()
    device_id, credentials = fleet.device()
    async with waiting(fleet, device_id) as (inward, address):
        with calling(address, credentials, Echo(device_id=device_id)):
            await there(inward)
            (announced,) = inward.present()
            assert announced.id == device_id
            for place, wanted in ((announced.address, device_id), ("dialled:1.2.3.4:5", device_id)):
                link = inward.connect(place, wanted)
                assert (await link.hello(HelloRequest(software="1"), timeout=5)).name == "1"
                await link.close()
        await there(inward, 0)
        link = inward.connect(announced.address, device_id)
        with pytest.raises(LinkError, match="has not dialled in"):
            await link.hello(HelloRequest(), timeout=5)


@pytest.mark.fault
async def test_a_device_cannot_say_that_it_is_another() -> None:
    fleet = TestFleet()
    device_id, credentials = fleet.device()
    other_id, _ = fleet.device()
    async with waiting(fleet, device_id, other_id) as (inward, address):
        with calling(address, credentials, Echo(device_id=other_id)):
            await there(inward)
            link = inward.connect(inward.present()[0].address, "")
            with pytest.raises(EdvitError) as caught:
                await link.hello(HelloRequest(), timeout=5)
            assert caught.value.code == "device.identity"


@pytest.mark.fault
@pytest.mark.parametrize("who", ["stranger", "aggregator", "removed", "nobody"])
async def test_only_devices_of_the_fleet_may_dial_in(who: str) -> None:
    fleet, stranger = TestFleet(), TestFleet()
    device_id, credentials = fleet.device()
    async with waiting(fleet, *(() if who == "removed" else (device_id,))) as (inward, address):
        if who == "nobody":
            reader, writer = await asyncio.open_connection(HOST, int(address.rpartition(":")[2]))
            writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
            assert (await asyncio.wait_for(reader.read(100), 5))[:1] in (b"", b"\x15"), "an alert of TLS"
            writer.close()
        elif who == "stranger":
            _, theirs = stranger.device()
            error = await refusal(address, Credentials(theirs.key, theirs.certificate, credentials.authority))
            assert isinstance(error, LinkError), "it does not get through the handshake"
        else:
            error = await refusal(address, fleet.aggregator() if who == "aggregator" else credentials)
            assert isinstance(error, TrustError)
            assert "does not take this device" in error.message
        assert inward.present() == []


@pytest.mark.fault
async def test_a_device_that_is_removed_is_hung_up_on() -> None:
    fleet = TestFleet()
    device_id, credentials = fleet.device()
    async with waiting(fleet, device_id) as (inward, address):
        with calling(address, credentials, Echo()) as task:
            await there(inward)
            inward.admit([])
            await asyncio.wait({task}, timeout=5)
            assert task.done()
        assert inward.present() == []


@pytest.mark.fault
@pytest.mark.parametrize("who", ["device", "stranger"])
async def test_only_the_owners_programs_are_relayed(who: str) -> None:
    fleet = TestFleet()
    device_id, credentials = fleet.device()
    other_id, other = fleet.device()

    async def nothing(request: ClassifyRequest) -> ClassifyReply:
        raise UsageError(f"no pictures here: {len(request.picture)}")

    mine = TestFleet().aggregator()
    asking = other if who == "device" else Credentials(mine.key, mine.certificate, credentials.authority)
    handler = Echo(device_id=device_id)
    async with waiting(fleet, device_id, other_id) as (inward, address):
        shown = fleet.aggregator()
        server = await serve_aggregator(nothing, Address(HOST, 0), lambda: shown, inward.tunnel_to)
        with calling(address, credentials, handler):
            await there(inward)
            link = RelayedLink("dialled", f"{HOST}:{server.port}", asking, device_id)
            with pytest.raises(EdvitError):
                await link.hello(HelloRequest(), timeout=5)
            await link.close()
        await server.stop(0)


@pytest.mark.fault
async def test_a_copied_key_that_dials_in_twice_is_two_at_once_and_an_old_connection_is_not() -> None:
    fleet = TestFleet()
    device_id, credentials = fleet.device()
    one, other = Instance(device_id, b"one"), Instance(device_id, b"other")
    async with waiting(fleet, device_id) as (inward, address), asyncio.TaskGroup() as tasks:
        member = Member(Announced("", device_id), connect=inward.connect, prepare=nothing_to_do)
        running = tasks.create_task(member.run())
        with inward.watched(member.seen), calling(address, credentials, one):
            await until(member, State.UP, 5)
            with calling(address, credentials, one):
                await there(inward, 2)
                await asyncio.sleep(2.5)
                assert member.state is State.UP, "the same process twice"
            with calling(address, credentials, other):
                await until(member, State.REFUSED, 5)
                assert "is a copy" in member.reason
            await until(member, State.UP, 30)
        running.cancel()


class Instance(Echo):
    """A process that holds a key."""

    def __init__(self, device_id: str, instance: bytes) -> None:
        super().__init__(device_id=device_id)
        self._instance = instance

    async def hello(self, request: HelloRequest) -> HelloReply:
        reply = await super().hello(request)
        reply.instance = self._instance
        return reply


async def nothing_to_do(link: Link, hello: HelloReply) -> HelloReply:
    del link
    return hello


@pytest.mark.fault
async def test_a_device_says_nothing_to_an_impostor_where_its_aggregator_should_be() -> None:
    fleet, stranger = TestFleet(), TestFleet()
    device_id, credentials = fleet.device()
    other_id, _ = stranger.device()
    async with waiting(stranger, device_id, other_id) as (inward, address):
        error = await refusal(address, credentials)
        assert error.code == "trust.impostor"
        assert inward.present() == []
    # Another device of its own fleet is no aggregator either.
    _, device = fleet.device()
    server = await serve_inward(Inward().welcome, Address(HOST, 0), lambda: device)
    assert (await refusal(f"{HOST}:{server.port}", credentials)).code == "trust.impostor"
    await server.stop(0)


@pytest.mark.fault
async def test_the_port_speaks_tls_1_3_and_no_other(tmp_path: Path) -> None:
    fleet = TestFleet()
    _, credentials = fleet.device()
    context = tls(ssl.create_default_context(), credentials, tmp_path)

    def version(port: int) -> str | None:
        with (
            socket.create_connection((HOST, port), timeout=5) as plain,
            context.wrap_socket(plain, server_hostname=AGGREGATOR) as secured,
        ):
            return secured.version()

    async with waiting(fleet) as (_, address):
        port = int(address.rpartition(":")[2])
        assert await asyncio.to_thread(version, port) == "TLSv1.3"
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.to_thread(version, port)


@pytest.mark.fault
async def test_silent_connections_are_capped_and_closed_and_a_device_is_asked_meanwhile() -> None:
    fleet = TestFleet()
    device_id, credentials = fleet.device()
    async with waiting(fleet, device_id) as (inward, address):
        with calling(address, credentials, Echo(device_id=device_id)):
            await there(inward)
            link = inward.connect("", device_id)
            command = [sys.executable, "-m", "tests.rpc.silent", address.rpartition(":")[2]]
            flood = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
            assert flood.stdout
            first = asyncio.create_task(flood.stdout.readline())
            while not first.done():
                await link.hello(HelloRequest(), timeout=1)
            assert CONNECTIONS > MOST_CONNECTIONS >= int(first.result()) > 0
            last = asyncio.create_task(flood.stdout.readline())
            while not last.done():
                await link.hello(HelloRequest(), timeout=1)
                await asyncio.sleep(0.05)
            assert float(last.result()) < HANDSHAKE_SECONDS + 5
            await flood.wait()
            await link.close()


@pytest.mark.fault
@pytest.mark.long
async def test_a_member_that_says_nothing_is_hung_up_on() -> None:
    fleet = TestFleet()
    device_id, credentials = fleet.device()
    async with waiting(fleet, device_id) as (_, address):
        options = [("grpc.ssl_target_name_override", AGGREGATOR)]
        connection = grpc.aio.secure_channel(address, channel_credentials(credentials), options=options)
        await asyncio.wait_for(connection.channel_ready(), 5)
        start = time.monotonic()
        await asyncio.wait_for(connection.wait_for_state_change(grpc.ChannelConnectivity.READY), 30)
        assert IDLE_SECONDS - 1 < time.monotonic() - start < 2 * IDLE_SECONDS + 5
        await connection.close()


@pytest.mark.fault
async def test_what_is_dialled_and_does_not_prove_itself_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("edvit_tf.rpc.inward.CONNECT_SECONDS", 0.5)
    _, credentials = TestFleet().device()
    with socket.create_server((HOST, 0)) as silent:
        error = await refusal(f"{HOST}:{silent.getsockname()[1]}", credentials)
    assert isinstance(error, LinkError)
    assert "did not prove itself" in error.message


@pytest.mark.fault
async def test_a_slow_loris_is_closed_in_fifteen_seconds() -> None:
    async with waiting(TestFleet()) as (_, address):
        await slow_loris(int(address.rpartition(":")[2]), 100, longest=15)


class Written:
    """A stream of frames that were written down; what is sent back is kept."""

    def __init__(self, frames: list[Frame], *, end: bool = True) -> None:
        self._frames = list(frames)
        self._end = end
        self.sent: list[Frame] = []

    async def read(self) -> object:
        if self._frames:
            return self._frames.pop(0)
        await asyncio.sleep(0.01 if self._end else 1000)
        return grpc.aio.EOF

    async def write(self, frame: Frame) -> None:
        self.sent.append(frame)


numbers = st.integers(0, 3)
frames = st.one_of(
    st.builds(Frame, call=numbers, method=st.sampled_from(["/edvit.v1.Device/Hello", "/no/such", ""])),
    st.builds(Frame, call=numbers, message=st.binary(max_size=20)),
    st.builds(Frame, call=numbers, last=st.booleans()),
    st.builds(Frame, call=numbers, cancelled=st.booleans()),
    st.builds(Frame, call=numbers, taken=st.integers(0, 2**32 - 1)),
    st.builds(
        Frame,
        call=numbers,
        outcome=st.builds(
            Outcome, status=st.sampled_from(["OK", "CANCELLED", "UNAVAILABLE", "what"]), details=st.text()
        ),
    ),
    st.builds(Frame, call=numbers),
)


@pytest.mark.fault
@given(st.lists(frames, max_size=40))
def test_whatever_a_device_sends_ends_in_an_answer_or_an_error(sent: list[Frame]) -> None:
    async def story() -> None:
        from edvit_tf.rpc.tunnelled import TunnelledLink

        tunnel = Tunnel(Written(sent), peer="a" * 64)
        link = TunnelledLink("dialled", tunnel)
        asked = [asyncio.create_task(link.hello(HelloRequest(), timeout=1)) for _ in range(3)]
        await asyncio.sleep(0)
        with contextlib.suppress(ProtocolError):
            await tunnel.run()
        for result in await asyncio.gather(*asked, return_exceptions=True):
            assert isinstance(result, EdvitError), result
        assert tunnel.ended
        await link.close()

    asyncio.run(story())


@pytest.mark.fault
@given(st.lists(frames, max_size=40))
def test_whatever_is_asked_of_a_device_is_answered_or_ends_the_stream(sent: list[Frame]) -> None:
    async def story() -> None:
        answering = TunnelServer()
        add_device(answering, Echo())
        stream = Written(sent)
        with contextlib.suppress(ProtocolError):
            await Tunnel(stream, answering.answer).run()
        statuses = {frame.outcome.status for frame in stream.sent if frame.WhichOneof("part") == "outcome"}
        assert statuses <= {"OK", "UNIMPLEMENTED", "INTERNAL", "UNKNOWN", "FAILED_PRECONDITION"}
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(story())


@pytest.mark.fault
async def test_more_messages_than_there_is_room_for_end_the_stream() -> None:
    many = [Frame(call=1, message=b"x") for _ in range(WINDOW + 1)]
    tunnel = Tunnel(Written(many))
    tunnel.open("/edvit.v1.Device/Infer")
    with pytest.raises(ProtocolError, match="room"):
        await tunnel.run()


@pytest.mark.fault
async def test_a_device_that_reads_nothing_is_hung_up_on() -> None:
    class Deaf(Written):
        async def write(self, frame: Frame) -> None:
            del frame
            await asyncio.sleep(1000)

    tunnel = Tunnel(Deaf([], end=False))
    running = asyncio.create_task(tunnel.run())
    for _ in range(MOST_FRAMES):
        await asyncio.sleep(0)
        tunnel.open("/edvit.v1.Device/Hello").cancel()
    await asyncio.wait_for(running, 5)
    assert tunnel.ended


async def test_more_calls_than_a_device_answers_are_told_that_it_is_busy() -> None:
    async def never(method: str, exchange: Exchange) -> Outcome:
        del method, exchange
        await asyncio.sleep(1000)
        return Outcome(status="OK")

    begun = [Frame(call=number, method="/x") for number in range(1, MOST_CALLS + 2)]
    stream = Written(begun)
    await Tunnel(stream, never).run()
    (refused,) = [frame for frame in stream.sent if frame.WhichOneof("part") == "outcome"]
    assert (refused.call, refused.outcome.status) == (MOST_CALLS + 1, "RESOURCE_EXHAUSTED")


async def test_whoever_takes_slowly_is_not_sent_more_than_there_is_room_for() -> None:
    stream = Written([], end=False)
    tunnel = Tunnel(stream)
    running = asyncio.create_task(tunnel.run())
    exchange = tunnel.open("/edvit.v1.Device/Install")
    sent = 0

    async def send() -> None:
        nonlocal sent
        for _ in range(10 * WINDOW):
            await exchange.send(b"x")
            sent += 1

    sending = asyncio.create_task(send())
    await asyncio.sleep(0.1)
    assert sent == WINDOW
    exchange.taken(5)
    await asyncio.sleep(0.1)
    assert sent == WINDOW + 5
    sending.cancel()
    tunnel.close()
    await running


def test_a_device_is_known_by_the_name_in_its_certificate() -> None:
    assert device_of([AGGREGATOR, device_name("ab" * 32), "device.edvit"]) == "ab" * 32
    for names in ([], ["device.edvit"], [AGGREGATOR], [device_name("ab" * 32) + ".org"], ["x" * 70]):
        assert device_of(names) == ""
