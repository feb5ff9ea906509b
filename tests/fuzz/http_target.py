"""The HTTP picture endpoint as a target: the whole application, without a socket."""

import asyncio
import json
from collections.abc import Coroutine
from io import BytesIO
from typing import Any

from PIL import Image
from starlette.types import Message

from edvit_tf.bundle.reader import open_bundle
from edvit_tf.errors import DataError
from edvit_tf.fleet import Aggregator
from edvit_tf.fleet.serve.front import Bounds, Front
from edvit_tf.fleet.serve.http import http_application
from edvit_tf.fleet.serve.metrics import Metrics
from tests.conftest import GOLDEN
from tests.fleet.fakes import fleet_of, picture
from tests.fuzz.targets import Fuzzed

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "PPM", "TIFF")
SCOPE = {
    "type": "http",
    "asgi": {"version": "3.0"},
    "http_version": "1.1",
    "method": "POST",
    "scheme": "http",
    "path": "/v1/classify",
    "raw_path": b"/v1/classify",
    "query_string": b"",
    "headers": [(b"host", b"localhost")],
    "client": ("127.0.0.1", 1),
    "server": ("127.0.0.1", 80),
}


def http_pictures() -> Fuzzed:
    """A picture that somebody sends: it is answered, or refused in a sentence."""
    bundle = open_bundle(GOLDEN)
    network, deployment = fleet_of(bundle)
    loop = asyncio.new_event_loop()

    def run(work: Coroutine[Any, Any, Any]) -> Any:
        return loop.run_until_complete(work)

    aggregator = Aggregator(bundle, deployment, connect=network.connect, browse=False)
    run(aggregator.__aenter__())
    front = Front(lambda: aggregator, Bounds(deadline=5.0), Metrics(aggregator.status))
    application = http_application(front, loopback=True)

    async def send(data: bytes) -> tuple[int, bytes]:
        said: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": data, "more_body": False}

        async def answer(message: Message) -> None:
            said.append(message)

        await application(dict(SCOPE), receive, answer)
        for device in network.devices.values():
            device.asked.clear()
        return said[0]["status"], b"".join(message.get("body", b"") for message in said)

    def target(data: bytes) -> None:
        status, body = run(send(data))
        answer = json.loads(body)
        if status == 400:
            raise DataError(answer["error"]["message"])
        assert status == 200, (status, body)
        assert answer["complete"]

    def close() -> None:
        run(aggregator.__aexit__(None, None, None))
        loop.close()

    return Fuzzed(target, _corpus(picture(bundle)[:, :, 0]), close)


def _corpus(grey: Any) -> list[bytes]:
    images = [Image.fromarray(grey), Image.fromarray(grey).convert("RGB").resize((40, 30))]
    files = []
    for image in images:
        for name in FORMATS:
            data = BytesIO()
            image.save(data, name)
            files.append(data.getvalue())
    return files
