"""Deploying: who takes which sub-model, sending it there, and making sure that it arrived.

`deploy` does it for a fleet; `ensure` for one device, also for one that comes back with an empty store.
"""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from edvit_tf.bundle.manifest import Submodel, Variant
from edvit_tf.bundle.reader import Bundle
from edvit_tf.errors import DeviceError, EdvitError, LinkError
from edvit_tf.fleet.discover import Announced, clean_text
from edvit_tf.fleet.hello import say_hello
from edvit_tf.fleet.member import Connect
from edvit_tf.fleet.transfer import OnProgress, Parcel, install, settle
from edvit_tf.plan.greedy import Place, Work, greedy
from edvit_tf.rpc.channel import GrpcLink
from edvit_tf.rpc.edvit_pb2 import Generation, HelloReply
from edvit_tf.rpc.link import Link
from edvit_tf.rpc.runtimes import accepts

NO_DEVICE = (
    "no device was found: check that `edvit-tf device run` is running, that it is on this network "
    "(multicast passes, UDP port 5353 is open), or name it with --address host:port"
)


@dataclass(frozen=True, slots=True)
class Deployment:
    """Which device (by id) has which sub-model, and where the devices were last seen."""

    assignment: Mapping[str, str]
    devices: tuple[Announced, ...]

    def submodels_of(self, device: str) -> tuple[str, ...]:
        """The sub-models of a device."""
        return tuple(sorted(submodel for submodel, holder in self.assignment.items() if holder == device))


async def deploy(
    bundle: Bundle,
    devices: Sequence[Announced],
    *,
    on_progress: OnProgress | None = None,
    connect: Connect = GrpcLink,
) -> Deployment:
    """Place the sub-models on the devices by the paper's greedy and install them, all devices at once.

    A device that cannot be reached or is refused is left out, as long as the others suffice.

    Raises:
        LinkError: no device can be used; the sentence has the reason of each.
        PlanError: a sub-model fits on none of them.
        DeviceError: a device refused its sub-model, or holds another one than was sent.
    """
    async with AsyncExitStack() as stack:
        links: dict[str, Link] = {}
        hellos: dict[str, HelloReply] = {}
        reasons: list[str] = []
        for device, link, answer in await _greet(devices, connect, stack):
            if isinstance(answer, EdvitError):
                reasons.append(f"{device.name or device.address}: {answer.message}")
            elif missing := unsuited(bundle, answer.runtime):
                reasons.append(
                    f"{device.name or device.address}: it runs {answer.runtime}, and {missing} cannot"
                )
            else:
                links[answer.id], hellos[answer.id] = link, answer
        if not hellos:
            raise LinkError("; ".join(reasons) or NO_DEVICE, code="link.no_device")
        assignment = place(bundle, hellos)
        used = sorted(set(assignment.values()))
        deployment = Deployment(
            assignment,
            tuple(Announced(links[key].address, key, clean_text(hellos[key].name)) for key in used),
        )
        tasks = [
            ensure(links[key], hellos[key], bundle, deployment.submodels_of(key), on_progress=on_progress)
            for key in used
        ]
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
    return deployment


async def _greet(
    devices: Sequence[Announced], connect: Connect, stack: AsyncExitStack
) -> list[tuple[Announced, Link, HelloReply | EdvitError]]:
    async def one(device: Announced, link: Link) -> HelloReply | EdvitError:
        try:
            return await say_hello(link, device.id)
        except EdvitError as error:
            return error

    links = [connect(device.address) for device in devices]
    for link in links:
        stack.push_async_callback(link.close)
    answers = await asyncio.gather(*map(one, devices, links))
    return list(zip(devices, links, answers, strict=True))


def place(bundle: Bundle, hellos: Mapping[str, HelloReply]) -> dict[str, str]:
    """Assign each sub-model to a device id by the paper's greedy.

    The devices may need different variants of a sub-model; the largest of these counts.
    """
    runtimes = {hello.runtime for hello in hellos.values()}
    works = [
        Work(
            id=submodel.id,
            macs=submodel.macs,
            memory_bytes=max(variant_for(submodel, runtime).memory_bytes for runtime in runtimes),
        )
        for submodel in bundle.manifest.submodels
    ]
    # The plan's sentences name devices to people.
    names = {f"{clean_text(hello.name)} ({key[:12]})": key for key, hello in sorted(hellos.items())}
    places = [
        Place(
            id=name,
            memory_bytes=hellos[key].memory_bytes,
            energy_joules=hellos[key].energy_joules,
            joules_per_mac=hellos[key].joules_per_mac,
        )
        for name, key in names.items()
    ]
    return {submodel: names[name] for submodel, name in greedy(works, places).assignment.items()}


def variant_for(submodel: Submodel, runtime: str) -> Variant:
    """Return the first variant, in the manifest's order, that `runtime` ("name/version") runs rightly.

    Raises:
        DeviceError: there is none.
    """
    for variant in submodel.variants:
        if accepts(variant.runtimes, runtime):
            return variant
    raise DeviceError(
        f"{submodel.id} comes in {', '.join(submodel.formats)}, and {clean_text(runtime)} runs none of them: "
        "export it with --format f32 or int8 too",
        code="device.runtime",
    )


def unsuited(bundle: Bundle, runtime: str) -> str:
    """Name a sub-model that has no variant for `runtime`; empty when all have one."""
    for submodel in bundle.manifest.submodels:
        if not any(accepts(variant.runtimes, runtime) for variant in submodel.variants):
            return submodel.id
    return ""


async def ensure(
    link: Link,
    hello: HelloReply,
    bundle: Bundle,
    submodels: Sequence[str],
    *,
    on_progress: OnProgress | None = None,
) -> HelloReply:
    """Install what the device, which said `hello`, does not serve yet; return the hello that shows all of it.

    Raises:
        DeviceError: it refused, or holds something else than was sent.
        LinkError: it cannot be reached any more.
    """
    chosen = [
        (submodel, variant_for(bundle.manifest.submodel(submodel), hello.runtime)) for submodel in submodels
    ]
    missing = [
        (submodel, variant) for submodel, variant in chosen if not _holds(hello, bundle, submodel, variant)
    ]
    for submodel, variant in missing:
        parcel = Parcel(bundle, submodel, variant, clean_text(hello.name), replaces=True)
        await install(link, parcel, on_progress=on_progress)
    if not missing and not _on_trial(hello, bundle):
        return hello
    if _on_trial(hello, bundle) or (missing and hello.generations):
        await settle(link, bundle, device=clean_text(hello.name))
    after = await say_hello(link, hello.id)
    for submodel, variant in chosen:
        if not _holds(after, bundle, submodel, variant):
            raise DeviceError(
                f"{clean_text(hello.name)} does not hold the {submodel} that it was sent",
                code="device.holding",
            )
    return after


def _holds(hello: HelloReply, bundle: Bundle, submodel: str, variant: Variant) -> bool:
    generation = _generation(hello, bundle)
    return generation is not None and any(
        holding.submodel == submodel and holding.sha256 == variant.sha256 and holding.serving
        for holding in generation.holdings
    )


def _generation(hello: HelloReply, bundle: Bundle) -> Generation | None:
    """What the device holds of this very bundle."""
    digest = hashlib.sha256(bundle.manifest_bytes).digest()
    return next((one for one in hello.generations if one.manifest == digest), None)


def _on_trial(hello: HelloReply, bundle: Bundle) -> bool:
    generation = _generation(hello, bundle)
    return generation is not None and not generation.settled
