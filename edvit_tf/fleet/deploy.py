"""Deploying: who takes which sub-model, sending it there, and making sure that it arrived.

`deploy` does it for a fleet; `ensure` for one device, also for one that comes back with an empty store.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from edvit_tf.bundle.manifest import Submodel, Variant
from edvit_tf.bundle.reader import Bundle
from edvit_tf.errors import DeviceError, EdvitError, LinkError
from edvit_tf.fleet.answer import features_of
from edvit_tf.fleet.clones import refuse_clones
from edvit_tf.fleet.discover import Announced
from edvit_tf.fleet.hello import say_hello
from edvit_tf.fleet.member import Connect
from edvit_tf.fleet.rollout import Party, bearable, check_bearable, digest_of, roll
from edvit_tf.fleet.transfer import OnProgress, Parcel, install, settle
from edvit_tf.plan.greedy import Place, Work, greedy
from edvit_tf.rpc.codecs import encode
from edvit_tf.rpc.edvit_pb2 import Generation, HelloReply, Holding, InferRequest
from edvit_tf.rpc.link import Link
from edvit_tf.rpc.runtimes import accepts
from edvit_tf.rpc.text import clean_text
from edvit_tf.runtime.check import LEAST_COSINE, cosine

# One picture on a slow board over a bad network.
EXAMINE_SECONDS = 10.0
_PROCESSOR = ("any", "cpu")  # targets that any device has

NO_DEVICE = (
    "no device was found: check that `edvit-tf device run` is running, that it is on this network "
    "(multicast passes, UDP port 5353 is open), or name it with --address host:port"
)


@dataclass(frozen=True, slots=True)
class Deployment:
    """Which device (by id) is each sub-model's home, and where the devices of the fleet were last seen.

    `moved` says for sub-models that are not at home who holds them; `drained` devices are to hold nothing.
    """

    assignment: Mapping[str, str]
    devices: tuple[Announced, ...]
    moved: Mapping[str, str] = field(default_factory=dict)
    drained: frozenset[str] = frozenset()

    def submodels_of(self, device: str) -> tuple[str, ...]:
        """The sub-models whose home a device is."""
        return tuple(sorted(submodel for submodel, home in self.assignment.items() if home == device))

    def holder(self, submodel: str) -> str:
        """Who answers for a sub-model."""
        return self.moved.get(submodel, self.assignment[submodel])

    def wanted(self, device: str) -> tuple[str, ...]:
        """What a device should have: what it holds, and what it takes back when it can."""
        holding = {submodel for submodel in self.assignment if self.holder(submodel) == device}
        own = () if device in self.drained else self.submodels_of(device)
        return tuple(sorted({*own, *holding}))


async def deploy(
    bundle: Bundle,
    devices: Sequence[Announced],
    *,
    connect: Connect,
    on_progress: OnProgress | None = None,
    on_switch: Callable[[Deployment], Awaitable[None]] | None = None,
    outage: bool = False,
    excluded: Collection[str] = (),
) -> Deployment:
    """Place the sub-models on the devices by the paper's greedy and bring them there.

    Where nothing is served yet, all devices at once. Where an older bundle answers, it answers until all hold
    the new one (`edvit_tf.fleet.rollout`); then `on_switch` is called, at which the aggregator changes over.
    A device that cannot be reached or is refused is left out, as long as the others suffice. `outage` allows
    more sub-models to be out on the way than the fusion bears. Devices whose ids are `excluded` get nothing.
    What is there already is not sent again: after an interruption the same call goes on.

    Raises:
        LinkError: no device can be used; the sentence has the reason of each.
        PlanError: a sub-model fits on none of them.
        DeviceError: a device refused its sub-model or did not pass; every device is back at the old bundle.
    """
    async with AsyncExitStack() as stack:
        links: dict[str, Link] = {}
        hellos: dict[str, HelloReply] = {}
        reasons: list[str] = []
        for device, link, answer in await _greet(devices, connect, stack):
            if isinstance(answer, EdvitError):
                reasons.append(f"{device.name or device.address}: {answer.message}")
            elif answer.id in excluded:
                reasons.append(f"{device.name or device.address}: it is drained or was removed")
            elif missing := unsuited(bundle, answer):
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
            # Those that got nothing are of the fleet too: they are where a sub-model moves to.
            tuple(
                Announced(links[key].address, key, clean_text(hello.name))
                for key, hello in sorted(hellos.items())
            ),
        )
        parties = [_party(bundle, links[key], hellos[key], deployment.submodels_of(key)) for key in used]
        answering = any(party.before not in (b"", digest_of(bundle)) for party in parties)
        bears = bearable(bundle.manifest)
        if not outage:
            check_bearable(parties, bears)

        async def stage(party: Party) -> None:
            await fill(
                party.link,
                party.hello,
                bundle,
                party.submodels,
                on_progress=on_progress,
                replaces=party.tight,
            )
            await examine(party.link, party.hello, bundle, party.submodels)

        async def switch() -> None:
            if on_switch is not None:
                await on_switch(deployment)

        most = max(1, bears) if answering else len(bundle.manifest.submodels)
        await roll(parties, bundle, stage, most=most, on_switch=switch)
    return deployment


def _party(bundle: Bundle, link: Link, hello: HelloReply, submodels: tuple[str, ...]) -> Party:
    settled = next((one for one in hello.generations if one.settled), None)
    before = settled.manifest if settled else b""
    variants = [candidates(bundle.manifest.submodel(submodel), hello)[0] for submodel in submodels]
    there = {holding.sha256: holding.memory_bytes for one in hello.generations for holding in one.holdings}
    more = sum(variant.memory_bytes for variant in variants if variant.sha256 not in there)
    tight = bool(before) and sum(there.values()) + more > hello.memory_bytes
    return Party(link, hello, submodels, before, tight and before != digest_of(bundle))


async def _greet(
    devices: Sequence[Announced], connect: Connect, stack: AsyncExitStack
) -> list[tuple[Announced, Link, HelloReply | EdvitError]]:
    async def one(device: Announced, link: Link) -> HelloReply | EdvitError:
        try:
            return await say_hello(link, device.id)
        except EdvitError as error:
            return error

    links = [connect(device.address, device.id) for device in devices]
    for link in links:
        stack.push_async_callback(link.close)
    answers = refuse_clones(devices, await asyncio.gather(*map(one, devices, links)))
    return list(zip(devices, links, answers, strict=True))


def place(bundle: Bundle, hellos: Mapping[str, HelloReply]) -> dict[str, str]:
    """Assign each sub-model to a device id by the paper's greedy.

    A device may have a choice of variants, of which the smallest counts, and devices may need different ones,
    of which the largest counts.
    """
    works = [
        Work(
            id=submodel.id,
            macs=submodel.macs,
            memory_bytes=max(
                min(variant.memory_bytes for variant in candidates(submodel, hello))
                for hello in hellos.values()
            ),
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


def candidates(submodel: Submodel, hello: HelloReply) -> list[Variant]:
    """The variants that a device can run rightly by what it says of itself.

    What its accelerator computes comes first, then the others, each in the manifest's order.

    Raises:
        DeviceError: there is none (`device.runtime`).
    """
    targets = set(hello.targets) or set(_PROCESSOR)
    found = [
        variant
        for variant in submodel.variants
        if variant.target in targets and accepts(variant.runtimes, hello.runtime)
    ]
    if found:
        return sorted(found, key=lambda variant: variant.target in _PROCESSOR)
    raise DeviceError(
        f"{submodel.id} comes in {', '.join(submodel.formats)}, and {clean_text(hello.runtime)} runs none of "
        "them: export it with --format f32 or int8 too",
        code="device.runtime",
    )


def unsuited(bundle: Bundle, hello: HelloReply) -> str:
    """Name a sub-model that has no variant for a device; empty when all have one."""
    for submodel in bundle.manifest.submodels:
        try:
            candidates(submodel, hello)
        except DeviceError:
            return submodel.id
    return ""


async def ensure(
    link: Link,
    hello: HelloReply,
    bundle: Bundle,
    submodels: Sequence[str],
    *,
    on_progress: OnProgress | None = None,
    settles: bool = True,
) -> HelloReply:
    """Install what the device, which said `hello`, does not serve yet; return the hello that shows all of it.

    With `settles` a bundle that was on trial there is no more, and the one before it goes.

    Raises:
        DeviceError: it refused, or holds something else than was sent.
        LinkError: it cannot be reached any more.
    """
    sent = await fill(link, hello, bundle, submodels, on_progress=on_progress)
    if not sent and not (settles and _on_trial(hello, bundle)):
        return hello
    if settles:
        await settle(link, bundle, device=clean_text(hello.name))
    after = await say_hello(link, hello.id)
    for submodel in submodels:
        if _held(after, bundle, submodel) is None:
            raise _holds_not(hello, submodel)
    return after


async def fill(
    link: Link,
    hello: HelloReply,
    bundle: Bundle,
    submodels: Sequence[str],
    *,
    on_progress: OnProgress | None = None,
    replaces: bool = True,
) -> bool:
    """Install what the device, which said `hello`, does not serve yet, each in the variant it runs fastest.

    Every variant that the device says it can run is sent and measured there; one that it refuses is left out
    as long as another serves. Only with `replaces` may the settled bundle rest to make room. Tells whether
    anything was sent.

    Raises:
        DeviceError: it refused all variants of a sub-model; the sentence is about the first.
        LinkError: it cannot be reached any more.
    """
    missing = [submodel for submodel in submodels if _held(hello, bundle, submodel) is None]
    for submodel in missing:
        chosen = candidates(bundle.manifest.submodel(submodel), hello)
        parcels = [Parcel(bundle, submodel, one, clean_text(hello.name), replaces) for one in chosen]
        await _install_fastest(link, parcels, on_progress)
    return bool(missing)


async def _install_fastest(link: Link, parcels: Sequence[Parcel], on_progress: OnProgress | None) -> None:
    measured: list[tuple[int, Parcel]] = []
    refusals: list[DeviceError] = []
    for parcel in parcels:
        try:
            measured.append((await install(link, parcel, on_progress=on_progress), parcel))
        except DeviceError as error:
            refusals.append(error)
    if not measured:
        raise refusals[0]
    _, fastest = min(reversed(measured), key=lambda one: one[0])
    if fastest is not measured[-1][1]:
        await install(link, fastest, on_progress=on_progress)  # its bytes are there still


async def examine(link: Link, hello: HelloReply, bundle: Bundle, submodels: Sequence[str]) -> None:
    """Ask the device for its test vectors over the link, as an answer would.

    Raises:
        DeviceError: it does not hold what was sent (`device.holding`), or answers otherwise than where the
            bundle was made (`device.health`).
        LinkError: it does not answer.
    """
    after = await say_hello(link, hello.id)
    who = clean_text(hello.name) or link.address
    for submodel in submodels:
        holding = _held(after, bundle, submodel)
        if holding is None:
            raise _holds_not(hello, submodel)
        variant = next(
            one for one in bundle.manifest.submodel(submodel).variants if one.sha256 == holding.sha256
        )
        vector = bundle.vector(variant)
        request = InferRequest(
            request_id=secrets.token_hex(8),
            bundle=bundle.manifest.name,
            bundle_version=bundle.manifest.version,
            manifest=digest_of(bundle),
            submodels=[submodel],
            picture=encode(vector.image),
        )
        reply = await link.infer(request, timeout=EXAMINE_SECONDS)
        feature = features_of(reply, request, bundle.manifest, who)[submodel]
        near = cosine(feature, vector.feature)
        if near < LEAST_COSINE:
            raise DeviceError(
                f"{who} answers the test vector of {submodel} wrongly (cosine {near:.3f})",
                code="device.health",
            )


def _holds_not(hello: HelloReply, submodel: str) -> DeviceError:
    return DeviceError(
        f"{clean_text(hello.name)} does not hold the {submodel} that it was sent", code="device.holding"
    )


def _held(hello: HelloReply, bundle: Bundle, submodel: str) -> Holding | None:
    """What the device serves of this sub-model of this very bundle, in a variant that is the bundle's."""
    generation = _generation(hello, bundle)
    variants = {variant.sha256 for variant in bundle.manifest.submodel(submodel).variants}
    for holding in generation.holdings if generation else ():
        if holding.submodel == submodel and holding.serving and holding.sha256 in variants:
            return holding
    return None


def _generation(hello: HelloReply, bundle: Bundle) -> Generation | None:
    """What the device holds of this very bundle."""
    return next((one for one in hello.generations if one.manifest == digest_of(bundle)), None)


def _on_trial(hello: HelloReply, bundle: Bundle) -> bool:
    generation = _generation(hello, bundle)
    return generation is not None and not generation.settled
