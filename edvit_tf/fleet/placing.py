"""A fleet in the terms of failover's plan: its devices as hosts, its sub-models as parts."""

from collections.abc import Mapping

from edvit_tf.bundle.reader import Bundle
from edvit_tf.errors import DeviceError
from edvit_tf.fleet.deploy import Deployment, candidates
from edvit_tf.plan.failover import Host, Part
from edvit_tf.rpc.edvit_pb2 import HelloReply
from edvit_tf.rpc.text import clean_text

UNKNOWN = "it has not answered yet"


def host_of(
    hello: HelloReply, *, trouble: str, away: float, steady: float, falls: int, drained: bool
) -> Host:
    """A device by what it said of itself, and how it has answered."""
    return Host(
        id=hello.id,
        name=clean_text(hello.name) or hello.id[:12],
        trouble=trouble,
        away=away,
        steady=steady,
        falls=falls,
        drained=drained,
        memory_bytes=hello.memory_bytes,
        energy_joules=hello.energy_joules,
        joules_per_mac=hello.joules_per_mac,
    )


def parts_of(
    bundle: Bundle,
    deployment: Deployment,
    hellos: Mapping[str, HelloReply],
    refusals: Mapping[tuple[str, str], str],
) -> list[Part]:
    """The sub-models of a bundle.

    `refusals` are reasons why a device (second) has just not taken a sub-model (first).
    """
    parts = []
    for submodel in bundle.manifest.submodels:
        memory: dict[str, int] = {}
        unfit: dict[str, str] = {}
        for device, hello in hellos.items():
            try:
                fitting = candidates(submodel, hello)
            except DeviceError as error:
                unfit[device] = error.message
            else:
                memory[device] = min(variant.memory_bytes for variant in fitting)
            if reason := refusals.get((submodel.id, device)):
                unfit[device] = reason
        parts.append(
            Part(
                id=submodel.id,
                macs=submodel.macs,
                home=deployment.assignment[submodel.id],
                holder=deployment.holder(submodel.id),
                memory_bytes=memory,
                unfit=unfit,
            )
        )
    return parts
