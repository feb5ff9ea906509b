"""A device's own log: the last lines, without secrets, over every kind of link."""

import asyncio
import json
import logging
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager

import pytest

from edvit_tf.device.journal import LONGEST_LINE, Journal, redacted
from edvit_tf.rpc.channel import ChannelLink, GrpcLink, add_device, serve_grpc
from edvit_tf.rpc.edvit_pb2 import JournalRequest
from edvit_tf.rpc.pairing import new_code, new_token
from edvit_tf.rpc.tunnelled import TunnelServer
from tests.rpc.fleet import TestFleet
from tests.rpc.handlers import Echo
from tests.rpc.test_inward import calling, there, waiting

log = logging.getLogger("edvit_tf.test_journal")


@pytest.fixture
def journal() -> Iterator[Journal]:
    made = Journal(most=5)
    log.addHandler(made)
    log.setLevel(logging.INFO)
    yield made
    log.removeHandler(made)


@asynccontextmanager
async def called(journal: Journal) -> AsyncIterator[ChannelLink]:
    fleet = TestFleet()
    device_id, credentials = fleet.device()
    server = await serve_grpc(Echo(), "127.0.0.1", 0, lambda: credentials, journal=journal.read)
    link = GrpcLink(f"127.0.0.1:{server.port}", fleet.aggregator(), device_id)
    try:
        yield link
    finally:
        await link.close()
        await server.stop(0)


@asynccontextmanager
async def dialled(journal: Journal) -> AsyncIterator[ChannelLink]:
    fleet = TestFleet()
    device_id, credentials = fleet.device()
    answering = TunnelServer()
    add_device(answering, Echo(), journal=journal.read)
    async with waiting(fleet, device_id) as (inward, address):
        with calling(address, credentials, Echo(), answering):
            await there(inward)
            link = inward.connect("", device_id)
            yield link
            await link.close()


async def messages(link: ChannelLink, last: int) -> list[str]:
    return [json.loads(line)["message"] async for line in link.journal(last, follow=False, timeout=5)]


@pytest.mark.parametrize("opening", [called, dialled])
async def test_the_last_lines_come_and_then_those_that_follow(opening: object, journal: Journal) -> None:
    assert callable(opening)
    async with opening(journal) as link:
        for number in range(9):
            log.info("line %d", number)
        assert await messages(link, 100) == [f"line {number}" for number in range(4, 9)], "what is kept"
        assert await messages(link, 2) == ["line 7", "line 8"]
        assert await messages(link, 0) == []
        async with aclosing(link.journal(1, follow=True, timeout=None)) as lines:
            assert json.loads(await anext(lines))["message"] == "line 8"
            for number in range(3):
                thread = threading.Thread(target=log.warning, args=("from a thread %d", number))
                thread.start()
                line = json.loads(await asyncio.wait_for(anext(lines), 5))
                thread.join()
                assert (line["level"], line["message"]) == ("warning", f"from a thread {number}")


async def test_a_reader_that_has_gone_is_forgotten(journal: Journal) -> None:
    lines = journal.read(JournalRequest(follow=True))
    waiting_for = asyncio.ensure_future(anext(lines))
    await asyncio.sleep(0)
    assert len(journal._readers) == 1
    waiting_for.cancel()
    await asyncio.gather(waiting_for, return_exceptions=True)
    await lines.aclose()
    assert not journal._readers


async def test_no_line_is_too_long_or_holds_a_secret(journal: Journal) -> None:
    token, code = str(new_token(bytes(32))), new_code()
    log.info("given %s and %s", token, code)
    log.info("x" * 10 * LONGEST_LINE)
    error = ValueError("-----BEGIN PRIVATE KEY-----\nMIGH\n-----END PRIVATE KEY-----" + token)
    log.error("it failed", exc_info=error)
    lines = [line.json async for line in journal.read(JournalRequest(last=9))]
    assert len(lines) == 3
    assert all(len(line) <= LONGEST_LINE for line in lines)
    assert not any(secret in line for line in lines for secret in (token, code, "MIGH"))
    assert json.loads(lines[0])["message"] == "given (secret) and (secret)"
    assert "ValueError" in json.loads(lines[2])["exception"]


def test_what_is_no_secret_stays() -> None:
    said = "serving submodel-0 of golden version 1 at 2026-11-25 10:00:00, edvit_tf.device"
    assert redacted(said) == said
