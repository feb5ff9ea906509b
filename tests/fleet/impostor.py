"""Whoever announces a device's id and name without having its key, and counts what it is sent.

`python -m tests.fleet.impostor ADDRESS ID NAME TOKEN_ID` prints a line when it is announced, waits for one on
its standard input, and then prints what it heard: the calls that reached it, and all that was said on its
pairing port.

It is announced under the device's own service name, and shows a certificate for the device's name by an
authority of its own. On the pairing port it poses as a new machine that was given a token, whose id it knows.
"""

import asyncio
import json
import secrets
import sys
from collections.abc import AsyncGenerator, AsyncIterable

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from zeroconf.asyncio import AsyncZeroconf

from edvit_tf.device.advertise import service_info
from edvit_tf.device.service import Facts
from edvit_tf.rpc.certificates import ANY_DEVICE, device_name, id_of
from edvit_tf.rpc.channel import serve_grpc
from edvit_tf.rpc.edvit_pb2 import (
    HelloReply,
    HelloRequest,
    InferReply,
    InferRequest,
    InstallReply,
    InstallRequest,
    PairChallenge,
    PairReply,
    PairRequest,
)
from edvit_tf.rpc.link import PROTOCOL
from edvit_tf.rpc.pairing import NONCE_BYTES
from edvit_tf.rpc.pairing_channel import serve_pairing
from tests.rpc.fleet import TestFleet
from tests.rpc.handlers import Echo


class Listener(Echo):
    """Counts the calls that get as far as a handler."""

    calls = 0

    async def hello(self, request: HelloRequest) -> HelloReply:
        self.calls += 1
        return await super().hello(request)

    async def infer(self, request: InferRequest) -> InferReply:
        self.calls += 1
        return await super().infer(request)

    def install(self, requests: AsyncIterable[InstallRequest]) -> AsyncGenerator[InstallReply, None]:
        self.calls += 1
        return super().install(requests)

    def measure(self, requests: AsyncIterable[InstallRequest]) -> AsyncGenerator[InstallReply, None]:
        self.calls += 1
        return super().measure(requests)


class Lure:
    """Keeps what is said to a machine that says it was given a token."""

    def __init__(self, token_id: str) -> None:
        self._token_id = token_id
        self._key = ec.generate_private_key(ec.SECP256R1()).public_key()
        self.id = id_of(self._key)
        self.heard: list[str] = []

    async def pair(self, requests: AsyncIterable[PairRequest]) -> AsyncGenerator[PairReply, None]:
        challenge = PairChallenge(
            protocol=PROTOCOL,
            nonce=secrets.token_bytes(NONCE_BYTES),
            public_key=self._key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
            name="new",
            token_id=self._token_id,
        )
        async for request in requests:
            self.heard.append(request.SerializeToString().hex())
            if request.WhichOneof("part") == "offer":
                yield PairReply(challenge=challenge.SerializeToString())
            else:
                yield PairReply(proof=secrets.token_bytes(32))


async def main(address: str, device_id: str, name: str, token_id: str) -> None:
    """Listen, be announced, and say what came."""
    listener, lure = Listener(device_id=device_id), Lure(token_id)
    forged = TestFleet().credentials(
        ec.generate_private_key(ec.SECP256R1()), [device_name(device_id), ANY_DEVICE]
    )
    server = await serve_grpc(listener, address, 0, lambda: forged)
    pairing = await serve_pairing(lure.pair, address)
    zeroconf = AsyncZeroconf(interfaces=[address])
    for each, port, pair in ((device_id, server.port, 0), (lure.id, pairing.port, pairing.port)):
        info = service_info(Facts(each, name, "ai-edge-litert/9.0", 10**9), [address], port, pair=pair)
        registered = await zeroconf.async_register_service(info, cooperating_responders=True)
        await registered
    say({"port": server.port, "pair": pairing.port})
    await asyncio.to_thread(sys.stdin.readline)
    say({"calls": listener.calls, "paired": lure.heard})
    await zeroconf.async_close()
    await server.stop(0)
    await pairing.stop(0)


def say(line: object) -> None:
    """Print one line at once."""
    print(json.dumps(line), flush=True)  # noqa: T201


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:5]))
