"""Questions and answers over one stream: they overtake each other, are withdrawn, and are bounded."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from edvit_tf.errors import DeadlineError, DeviceError, LinkError
from edvit_tf.rpc.channel import ChannelLink
from edvit_tf.rpc.conversation import Answering
from edvit_tf.rpc.edvit_pb2 import HelloRequest, InferReply, InferRequest
from tests.rpc.handlers import Echo
from tests.rpc.test_link import Opening, over_a_network


class Slow(Echo):
    """Takes as many hundredths of a second as the bundle's version says; counts what it began and ended."""

    def __init__(self) -> None:
        super().__init__()
        self.begun: list[str] = []
        self.finished: list[str] = []

    async def infer(self, request: InferRequest) -> InferReply:
        self.begun.append(request.request_id)
        await asyncio.sleep(request.bundle_version / 100)
        self.finished.append(request.request_id)
        return InferReply(request_id=request.request_id)


def question(name: str, hundredths: int) -> InferRequest:
    return InferRequest(request_id=name, bundle_version=hundredths)


@over_a_network
async def test_answers_overtake_each_other_and_each_reaches_its_asker(opening: Opening) -> None:
    handler = Slow()
    async with opening(handler) as link:
        slow = asyncio.create_task(link.infer(question("slow", 50), timeout=10))
        await asyncio.sleep(0.1)
        quick = await asyncio.gather(
            *(link.infer(question(str(number), 1), timeout=10) for number in range(20))
        )
        assert [reply.request_id for reply in quick] == [str(number) for number in range(20)]
        assert not slow.done()
        assert (await slow).request_id == "slow"


@over_a_network
async def test_the_same_request_id_twice_is_two_questions(opening: Opening) -> None:
    async with opening(Slow()) as link:
        replies = await asyncio.gather(*(link.infer(question("q", 1), timeout=10) for _ in range(5)))
        assert len(replies) == 5


@over_a_network
async def test_a_question_that_is_given_up_is_withdrawn_and_the_others_go_on(opening: Opening) -> None:
    handler = Slow()
    async with opening(handler) as link:
        other = asyncio.create_task(link.infer(question("other", 60), timeout=10))
        with pytest.raises(DeadlineError):
            await link.infer(question("late", 10_000), timeout=0.2)
        assert (await other).request_id == "other"
        assert (await link.infer(question("next", 0), timeout=10)).request_id == "next"
        assert sorted(handler.begun) == ["late", "next", "other"]
        assert handler.finished == ["other", "next"]


@over_a_network
async def test_a_part_that_is_serialised_already_is_a_part_of_the_request(opening: Opening) -> None:
    async with opening(Echo()) as link:
        rest = InferRequest(bundle_version=7).SerializeToString()
        reply = await link.infer(InferRequest(request_id="q"), timeout=10, rest=rest)
        assert (reply.request_id, reply.bundle_version) == ("q", 7)


@over_a_network
async def test_a_stream_that_broke_is_an_error_for_all_and_a_new_one_is_opened(opening: Opening) -> None:
    handler = Slow()
    async with opening(handler) as link:
        asked = [asyncio.create_task(link.infer(question("q", 1000), timeout=10)) for _ in range(3)]
        await asyncio.sleep(0.2)
        assert isinstance(link, ChannelLink)
        await link._asking().close()
        results = await asyncio.gather(*asked, return_exceptions=True)
        assert all(isinstance(result, LinkError) for result in results)
        assert (await link.infer(question("again", 0), timeout=10)).request_id == "again"


@over_a_network
async def test_a_stream_that_broke_leaves_no_task_behind(opening: Opening) -> None:
    async with opening(Slow()) as link:
        assert isinstance(link, ChannelLink)
        await link.infer(question("q", 0), timeout=10)
        broken = link._asking()
        broken._call.cancel()
        await asyncio.wait({broken._reading}, timeout=10)
        await link.infer(question("again", 0), timeout=10)
        assert link._asking() is not broken
        assert broken._writing.done()


async def test_what_is_cancelled_before_it_begins_takes_no_place() -> None:
    async def never(request: InferRequest) -> InferReply:
        await asyncio.sleep(1000)
        return InferReply(request_id=request.request_id)

    answering = Answering(never, 3)
    for _ in range(5):
        replies: asyncio.Queue[InferReply] = asyncio.Queue()

        async def requests() -> AsyncIterator[InferRequest]:
            for turn in range(1, 5):
                yield InferRequest(turn=turn)
            await asyncio.sleep(1000)

        conversation = asyncio.create_task(answering.converse(requests(), replies.put))
        reply = await asyncio.wait_for(replies.get(), 10)
        assert (reply.turn, reply.code) == (4, "device.busy"), "the fourth, each time"
        conversation.cancel()
        await asyncio.gather(conversation, return_exceptions=True)
        await asyncio.sleep(0)


async def test_an_answer_that_is_being_written_is_not_withdrawn_and_no_other_is_written_meanwhile() -> None:
    async def at_once(request: InferRequest) -> InferReply:
        return InferReply(request_id=request.request_id)

    begun, go_on = asyncio.Event(), asyncio.Event()
    written: list[int] = []

    async def write(reply: InferReply) -> None:
        begun.set()
        await go_on.wait()
        written.append(reply.turn)

    async def requests() -> AsyncIterator[InferRequest]:
        yield InferRequest(turn=1)
        await begun.wait()
        yield InferRequest(turn=2)
        yield InferRequest(turn=1, withdrawn=True)
        await asyncio.sleep(0)
        assert not written
        go_on.set()

    await asyncio.wait_for(Answering(at_once, 3).converse(requests(), write), 10)
    assert written == [1, 2]


@over_a_network
async def test_a_refusal_is_an_answer(opening: Opening) -> None:
    async with opening(Echo(error=DeviceError("no room", code="device.memory"))) as link:
        for _ in range(3):
            with pytest.raises(DeviceError, match="no room") as caught:
                await link.infer(InferRequest(), timeout=5)
            assert caught.value.code == "device.memory"


@over_a_network
async def test_what_a_device_says_of_a_refusal_is_clean_and_short(opening: Opening) -> None:
    async with opening(Echo(error=DeviceError("\x1b[2J" + "no " * 1000, code="X; rm -rf"))) as link:
        for asking in (link.infer(InferRequest(), timeout=5), link.hello(HelloRequest(), timeout=5)):
            with pytest.raises(DeviceError) as caught:
                await asking
            assert caught.value.message.isprintable()
            assert len(caught.value.message) <= 500
            assert caught.value.code == "device"
