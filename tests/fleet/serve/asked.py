"""An aggregator over fake devices behind a real HTTP port, and how to ask it."""

import asyncio
import http.client
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from PIL import Image

from edvit_tf.bundle.reader import Bundle
from edvit_tf.fleet import Aggregator
from edvit_tf.fleet.serve.front import Bounds, Front
from edvit_tf.fleet.serve.http import http_application
from edvit_tf.fleet.serve.listen import HttpPort
from edvit_tf.fleet.serve.metrics import Metrics
from edvit_tf.rpc.address import Address
from tests.fleet.fakes import Network, fleet_of, picture


@dataclass(frozen=True, slots=True)
class Said:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Asked:
    """An open port, what is behind it, and the devices."""

    front: Front
    network: Network
    address: Address

    def ask_now(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Said:
        connection = http.client.HTTPConnection(self.address.host, self.address.port, timeout=20)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return Said(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    async def ask(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Said:
        return await asyncio.to_thread(self.ask_now, method, path, body, headers)

    async def classify(self, body: bytes, query: str = "") -> Said:
        return await self.ask("POST", f"/v1/classify{query}", body)


@asynccontextmanager
async def asked(bundle: Bundle, bounds: Bounds | None = None) -> AsyncIterator[Asked]:
    network, deployment = fleet_of(bundle)
    async with Aggregator(bundle, deployment, connect=network.connect, browse=False) as aggregator:
        front = Front(lambda: aggregator, bounds or Bounds(), Metrics(aggregator.status))
        port = HttpPort(http_application(front, loopback=True), Address("127.0.0.1", 0))
        port.open()
        try:
            yield Asked(front, network, port.address)
        finally:
            await front.stop(1.0)
            await port.close()


def png(bundle: Bundle, seed: int = 0) -> bytes:
    """A picture's file."""
    image = picture(bundle, seed)
    data = io.BytesIO()
    Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(data, "PNG")
    return data.getvalue()
