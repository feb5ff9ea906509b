"""A bundle in this very process, through the same dispatch as a fleet: device and aggregator put together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from edvit_tf.bundle.reader import Bundle
from edvit_tf.device.local import local_device
from edvit_tf.fleet import Aggregator, Announced, Deployment
from edvit_tf.fleet.wire import DEFAULT_WIRE, WireSettings
from edvit_tf.rpc.edvit_pb2 import HelloRequest
from edvit_tf.rpc.link import PROTOCOL, InProcessLink

# Nothing can be lost in one process, and a large model on a slow machine takes its time.
DEADLINE = 120.0


@asynccontextmanager
async def local_aggregator(
    bundle: Bundle, *, deadline: float = DEADLINE, wire: WireSettings = DEFAULT_WIRE
) -> AsyncIterator[Aggregator]:
    """Load every sub-model here and answer through them.

    Raises:
        DeviceError: a sub-model has no variant for the interpreter here.
        ModelError: one cannot be loaded.
    """
    service = local_device(bundle)
    try:
        hello = await service.hello(HelloRequest(protocol=PROTOCOL))
        deployment = Deployment(
            {submodel.id: hello.id for submodel in bundle.manifest.submodels},
            (Announced("in-process", hello.id, hello.name),),
        )
        async with Aggregator(
            bundle,
            deployment,
            deadline=deadline,
            connect=lambda address, _: InProcessLink(service, address),
            browse=False,
            wire=wire,
        ) as aggregator:
            yield aggregator
    finally:
        service.close()
