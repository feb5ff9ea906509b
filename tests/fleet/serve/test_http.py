"""The HTTP interface over real sockets and fake devices."""

import asyncio
import contextlib
import json
import logging
import re
import socket
import time
from dataclasses import replace
from typing import Any

import pytest

from edvit_tf.bundle.reader import Bundle
from edvit_tf.errors import DeviceError
from edvit_tf.fleet.again import Again
from edvit_tf.fleet.serve.front import Bounds
from edvit_tf.json_lines import JsonLines
from tests.fleet.fakes import picture
from tests.fleet.serve.asked import Asked, asked, png


async def test_a_picture_is_answered_as_the_aggregator_answers(bundle: Bundle) -> None:
    async with asked(bundle) as it:
        said = await it.classify(png(bundle))
        assert said.status == 200
        answer = said.json
        direct = await it.front.aggregator.classify(picture(bundle))
        assert answer["probabilities"] == list(direct.probabilities)
        assert list(answer) == [
            "request_id", "bundle", "bundle_version", "label", "probabilities", "complete", "answered",
            "expected", "missing", "weak_classes", "milliseconds", "devices",
        ]  # fmt: skip
        assert answer["bundle_version"] == bundle.manifest.version
        assert answer["request_id"] == said.headers["x-request-id"]
        assert len(answer["devices"]) == len(bundle.manifest.submodels)
        for part in answer["devices"]:
            assert 0 < part["milliseconds"] <= answer["milliseconds"]
            assert part["error"] == ""
            assert part["codec"] == "raw"
            assert part["sent_bytes"] > picture(bundle).size
            assert part["received_bytes"] > 0


async def test_a_device_that_is_late_is_left_out_by_the_deadline(bundle: Bundle) -> None:
    async with asked(bundle) as it:
        it.network.devices["0"].delay = 30.0
        start = time.monotonic()
        said = await it.classify(png(bundle), "?deadline=0.4")
        assert time.monotonic() - start < 2.0
        assert said.status == 200
        assert said.json["complete"] is False
        assert said.json["missing"] == list(it.network.devices["0"].served)
        assert said.json["weak_classes"]
        (failed,) = [part for part in said.json["devices"] if part["error"]]
        assert failed["code"] == "deadline"


async def test_codes_that_devices_make_up_fill_no_memory_and_asking_again_is_counted(bundle: Bundle) -> None:
    async with asked(bundle) as it:
        it.front.metrics.asked_again(Again.HEDGE)
        answer = await it.front.aggregator.classify(picture(bundle))
        for number in range(1000):
            error = DeviceError("no", code=f"device.{number}")
            part = replace(answer.devices[0], error=error)
            it.front.metrics.answered("http", replace(answer, devices=(part,)), 0.1)
        text = (await it.ask("GET", "/metrics")).body.decode()
        assert 'edvit_asked_again_total{what="hedge"} 1.0' in text
        assert 'edvit_asked_again_total{what="refused"} 0.0' in text
        assert len(re.findall(r"^edvit_device_failures_total", text, re.MULTILINE)) == 65
        assert 'code="other"' in text


async def test_nobody_in_time_is_504(bundle: Bundle) -> None:
    async with asked(bundle) as it:
        for device in it.network.devices.values():
            device.delay = 30.0
        said = await it.classify(png(bundle), "?deadline=0.3")
        assert said.status == 504
        assert "no sub-model answered" in said.json["error"]["message"]


MISTAKES: dict[str, tuple[int, str, dict[str, Any]]] = {
    "text": (400, "not a picture that can be read", {"body": b"no picture"}),
    "cut short": (400, "not a picture that can be read", {"body": "CUT"}),
    "nothing": (400, "body is empty", {"body": b""}),
    "a form": (
        415,
        "--data-binary",
        {"body": b"x", "headers": {"Content-Type": "multipart/form-data; boundary=x"}},
    ),
    "json": (415, "--data-binary", {"body": b"{}", "headers": {"Content-Type": "application/json"}}),
    "too large": (413, "more than 5000 bytes", {"body": b"x" * 5001}),
    "too large, not announced": (413, "more than 5000 bytes", {"body": "CHUNKS"}),
    "no number": (400, "number of seconds", {"body": b"x", "path": "/v1/classify?deadline=soon"}),
    "never": (400, "deadline must be", {"body": "PNG", "path": "/v1/classify?deadline=0"}),
    "not a number": (400, "deadline must be", {"body": "PNG", "path": "/v1/classify?deadline=nan"}),
    "too long": (400, "deadline must be", {"body": "PNG", "path": "/v1/classify?deadline=1e9"}),
}


@pytest.mark.parametrize("mistake", MISTAKES)
async def test_a_mistake_is_a_sentence_with_a_status(mistake: str, bundle: Bundle) -> None:
    status, sentence, given = MISTAKES[mistake]
    data = png(bundle)
    bodies: dict[str, Any] = {
        "PNG": data,
        "CUT": data[: len(data) // 2],
        "CHUNKS": iter([b"x" * 1000] * 6),
    }
    body = bodies[given["body"]] if isinstance(given["body"], str) else given["body"]
    async with asked(bundle, Bounds(picture_bytes=5000)) as it:
        said = await it.ask("POST", given.get("path", "/v1/classify"), body, given.get("headers"))
        assert said.status == status
        assert sentence in said.json["error"]["message"]
        assert (await it.classify(data)).status == 200, "the next one is answered"


async def test_more_than_the_bound_are_told_busy_and_nothing_is_lost(bundle: Bundle) -> None:
    async with asked(bundle, Bounds(in_flight=3)) as it:
        for device in it.network.devices.values():
            device.delay = 0.5
        said = await asyncio.gather(*(it.classify(png(bundle)) for _ in range(8)))
        assert sorted(each.status for each in said) == [200] * 3 + [503] * 5
        busy = next(each for each in said if each.status == 503)
        assert busy.headers["retry-after"] == "1"
        assert "try again" in busy.json["error"]["message"]
        assert (await it.classify(png(bundle))).status == 200


async def test_on_its_way_out_it_ends_what_is_in_flight_and_takes_no_more(bundle: Bundle) -> None:
    async with asked(bundle) as it:
        for device in it.network.devices.values():
            device.delay = 0.6
        under_way = asyncio.create_task(it.classify(png(bundle)))
        await asyncio.sleep(0.3)
        stopping = asyncio.create_task(it.front.stop(5.0))
        await asyncio.sleep(0)
        late = await it.classify(png(bundle))
        assert (late.status, late.json["error"]["code"]) == (503, "stopping")
        assert (await it.ask("GET", "/healthz")).status == 503
        assert (await under_way).status == 200
        await stopping


async def test_health_says_whether_anything_can_be_answered(bundle: Bundle) -> None:
    async with asked(bundle) as it:
        number = len(it.network.devices)
        said = await it.ask("GET", "/healthz")
        assert said.status == 200
        assert said.json == {"status": "ok", "devices_answering": number, "devices": number}
        for device in it.network.devices.values():
            device.alive = False
        await it.classify(png(bundle))
        said = await it.ask("GET", "/healthz")
        assert (said.status, said.json["status"]) == (503, "no device answers")


async def test_what_is_counted_can_be_scraped(bundle: Bundle) -> None:
    async with asked(bundle) as it:
        await it.classify(png(bundle))
        await it.classify(b"no picture")
        said = await it.ask("GET", "/metrics")
        assert said.status == 200
        text = said.body.decode()
        assert 'edvit_requests_total{outcome="complete",way="http"} 1.0' in text
        assert 'edvit_requests_total{outcome="data",way="http"} 1.0' in text
        assert 'edvit_request_seconds_count{way="http"} 1.0' in text
        device = it.network.devices["0"]
        assert f'edvit_device_state{{device="{device.id}",name="{device.name}",state="up"}} 1.0' in text
        assert f'edvit_device_state{{device="{device.id}",name="{device.name}",state="down"}} 0.0' in text
        (size,) = re.findall(
            rf'edvit_device_bytes_total{{codec="raw",device="{device.id}",direction="sent"}} (\d+)', text
        )
        assert int(size) > picture(bundle).size
        assert "process_open_fds" in text


async def test_the_page_needs_nothing_from_elsewhere_and_the_document_describes_the_answer(
    bundle: Bundle,
) -> None:
    async with asked(bundle) as it:
        page = await it.ask("GET", "/docs")
        assert page.headers["content-type"].startswith("text/html")
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert not re.search(rb"<script|<link|src=|@import", page.body)
        document = (await it.ask("GET", "/openapi.json")).json
        assert document["openapi"].startswith("3.1")
        for path in ("/v1/classify", "/healthz", "/metrics"):
            assert path.encode() in page.body
            assert path in document["paths"]
        answer = (await it.classify(png(bundle))).json
        schemas = document["components"]["schemas"]
        assert answer.keys() == schemas["Answer"]["properties"].keys()
        assert answer["devices"][0].keys() == schemas["DevicePart"]["properties"].keys()
        assert (await it.ask("GET", "/healthz")).json.keys() == schemas["Health"]["properties"].keys()


async def test_a_page_of_another_site_cannot_use_a_name_of_its_own_for_us(bundle: Bundle) -> None:
    async with asked(bundle) as it:
        said = await it.ask("GET", "/healthz", headers={"Host": "evil.example"})
        assert said.status == 400


@pytest.mark.parametrize("begin", [b"", b"POST /v1/classify HTT"])
async def test_who_opens_a_connection_and_says_nothing_is_shown_out(
    bundle: Bundle, begin: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edvit_tf.fleet.serve.listen.HEAD_SECONDS", 0.5)
    async with asked(bundle) as it:
        assert await asyncio.to_thread(closed_after, it, begin) < 3.0


async def test_a_picture_that_does_not_arrive_gives_up_its_place(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edvit_tf.fleet.serve.http.BODY_SECONDS", 0.5)
    async with asked(bundle, Bounds(in_flight=1)) as it:
        head = b"POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nabc"
        reply = await asyncio.to_thread(raw, it, head)
        assert reply.startswith(b"HTTP/1.1 408")
        assert (await it.classify(png(bundle))).status == 200


async def test_connections_are_capped(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edvit_tf.fleet.serve.listen.MOST_CONNECTIONS", 5)
    monkeypatch.setattr("edvit_tf.fleet.serve.listen.HEAD_SECONDS", 1.0)
    async with asked(bundle) as it:
        silent = [await asyncio.open_connection(it.address.host, it.address.port) for _ in range(5)]
        await asyncio.sleep(0.2)
        with pytest.raises(ConnectionError):
            await it.ask("GET", "/healthz")
        await asyncio.sleep(1.2)
        assert (await it.ask("GET", "/healthz")).status == 200
        for _, writer in silent:
            writer.close()


def closed_after(it: Asked, begin: bytes) -> float:
    """Seconds until the other side closes."""
    with socket.create_connection((it.address.host, it.address.port), timeout=10) as connection:
        start = time.monotonic()
        connection.sendall(begin)
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(100) == b""
        return time.monotonic() - start


def raw(it: Asked, data: bytes) -> bytes:
    with socket.create_connection((it.address.host, it.address.port), timeout=10) as connection:
        connection.sendall(data)
        return connection.recv(4096)


def test_a_line_of_the_log_is_json() -> None:
    record = logging.LogRecord("edvit_tf.test", logging.WARNING, "", 1, "ash is %s", ("down\nnow",), None)
    record.fields = {"device": "ash"}
    line = JsonLines().format(record)
    assert "\n" not in line
    said = json.loads(line)
    assert (said["level"], said["message"], said["device"]) == ("warning", "ash is down\nnow", "ash")
    assert said["time"].endswith("+00:00")
