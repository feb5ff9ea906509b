"""One device of an idle fleet: `python -m edvit_tf.cli.idle_device`, told what it is on standard input.

Its port is a device's own, with everything but an interpreter. The bare port beside it has the same TLS and
answers as many bytes without looking at what it was sent.
"""

import asyncio
import json
import sys

import grpc
import grpc.aio
import numpy as np

from edvit_tf.cli.idle_fleet import RUNTIME, SIDE, idle_vector
from edvit_tf.cli.output import emit
from edvit_tf.device.engine import Engine
from edvit_tf.device.served import Held, Served, Shelf
from edvit_tf.device.service import DeviceService, Facts
from edvit_tf.rpc.channel import SERVER_OPTIONS, serve_grpc
from edvit_tf.rpc.edvit_pb2 import InferReply, Output
from edvit_tf.rpc.tls import Credentials, server_credentials
from edvit_tf.runtime.interpreter import Output as ModelOutput

ECHO = "/edvit.Bare/Echo"


class _Idle:
    """Knows the answer."""

    def __init__(self) -> None:
        vector = idle_vector()
        self._output = ModelOutput(feature=vector.feature, logits=vector.logits)

    def run(self, image: np.ndarray) -> ModelOutput:
        """Say it."""
        del image
        return self._output


class _Echo(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Answers the same bytes to everything."""

    def __init__(self, reply: bytes) -> None:
        async def echo(request: bytes, context: object) -> bytes:
            del request, context
            return reply

        self._handler = grpc.unary_unary_rpc_method_handler(echo)

    def service(self, details: grpc.HandlerCallDetails) -> object:
        """Take the one method that there is."""
        return self._handler if details.method == ECHO else None


async def main() -> None:
    """Serve until standard input ends."""
    told = json.loads(await asyncio.to_thread(sys.stdin.readline))
    shown = Credentials(told["key"].encode(), told["certificate"].encode(), told["authority"].encode())
    held = Held("idle", told["sha256"], "", "f32", 1, engine=Engine(_Idle()))
    served = Served(
        told["bundle"], told["version"], told["manifest"], (SIDE, SIDE, 3), {told["submodel"]: held}
    )
    service = DeviceService(Facts(told["id"], told["submodel"], RUNTIME, 10**9), Shelf(settled=served))
    device = await serve_grpc(service, "127.0.0.1", 0, lambda: shown)
    bare = grpc.aio.server(options=SERVER_OPTIONS)
    bare.add_generic_rpc_handlers((_Echo(_reply(told["submodel"])),))
    port = bare.add_secure_port("127.0.0.1:0", server_credentials(lambda: shown))
    await bare.start()
    emit({"device": device.port, "bare": port})
    await asyncio.to_thread(sys.stdin.read)


def _reply(submodel: str) -> bytes:
    """As many bytes as a device answers."""
    vector = idle_vector()
    output = Output(
        submodel=submodel,
        feature=vector.feature.tobytes(),
        logits=vector.logits.tobytes(),
        microseconds=1,
    )
    return InferReply(
        request_id="0" * 16, bundle_version=1, manifest=b"0" * 32, outputs=[output]
    ).SerializeToString()


if __name__ == "__main__":
    asyncio.run(main())
