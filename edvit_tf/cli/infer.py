"""`edvit-tf infer`: classify pictures or sounds through the fleet, or through a bundle in this process."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edvit_tf.cli.output import JsonOption, emit, show
from edvit_tf.cli.wire import WireOption, WireQualityOption

if TYPE_CHECKING:
    from edvit_tf.bundle.reader import Bundle
    from edvit_tf.fleet import Aggregator, Answer
    from edvit_tf.fleet.wire import WireSettings
    from edvit_tf.rpc.tls import Credentials

    Ask = Callable[[Path], Awaitable[Answer]]

# An aggregator that runs has a deadline of its own, which is not longer than this.
MOST_PATIENCE = 60.0


def infer(
    images: Annotated[
        list[Path], typer.Argument(help="Pictures (for a bundle of sound, sounds), or folders.")
    ],
    state: Annotated[
        Path | None,
        typer.Option("--state", help="Folder of the deployment (default: the user's data folder)."),
    ] = None,
    local: Annotated[
        Path | None, typer.Option("--local", help="A bundle to run in this process, without any device.")
    ] = None,
    deadline: Annotated[
        float | None,
        typer.Option("--deadline", min=0.01, max=600.0, help="Seconds for an answer (default: 2)."),
    ] = None,
    wire: WireOption = "auto",
    wire_quality: WireQualityOption = None,
    json: JsonOption = False,
) -> None:
    """Classify pictures or sounds: one line for each, as it comes."""
    import asyncio

    from edvit_tf.bundle.sample import find_samples
    from edvit_tf.errors import UsageError
    from edvit_tf.fleet.wire import WireSettings

    if state and local:
        raise UsageError("give either --state (the fleet) or --local (a bundle in this process), not both")
    bundle, asking = _choose(state, local, deadline, WireSettings(wire, wire_quality))
    paths = find_samples(images, bundle.manifest.input)

    async def work() -> None:
        async with asking as ask:
            for path in paths:
                answer = await ask(path)
                if json:
                    emit({"image": path, **answer.to_json()})
                else:
                    show(sentence(path, answer))

    asyncio.run(work())


def _choose(
    state: Path | None, local: Path | None, deadline: float | None, wire: "WireSettings"
) -> tuple["Bundle", AbstractAsyncContextManager["Ask"]]:
    """The bundle, and who answers: this process, the aggregator that runs, or one for this one call."""
    from edvit_tf.bundle.reader import open_bundle
    from edvit_tf.cli import local as in_process
    from edvit_tf.cli.trust import connect_in, keys_in
    from edvit_tf.errors import UsageError
    from edvit_tf.fleet import Aggregator
    from edvit_tf.fleet.dispatch import DEFAULT_DEADLINE
    from edvit_tf.fleet.hold import running
    from edvit_tf.fleet.state import default_folder, load
    from edvit_tf.fleet.wire import DEFAULT_WIRE

    if local is not None:
        bundle = open_bundle(local)
        opening = in_process.local_aggregator(bundle, deadline=deadline or in_process.DEADLINE, wire=wire)
        return bundle, _through(opening, bundle)
    folder = state or default_folder()
    bundle, deployment = load(folder)
    served = running(folder)
    if served is not None and served.grpc:
        if wire != DEFAULT_WIRE:
            raise UsageError(
                "the aggregator that runs decides how pictures are sent: give --wire to edvit-tf serve"
            )
        return bundle, _through_running(served.grpc, keys_in(folder).credentials, deadline)
    seconds = deadline or DEFAULT_DEADLINE
    return bundle, _through(
        Aggregator(bundle, deployment, connect=connect_in(folder), deadline=seconds, wire=wire), bundle
    )


@asynccontextmanager
async def _through(
    opening: AbstractAsyncContextManager["Aggregator"], bundle: "Bundle"
) -> AsyncIterator["Ask"]:
    import asyncio

    from edvit_tf.bundle.sample import read_sample

    async with opening as aggregator:

        async def ask(path: Path) -> "Answer":
            return await aggregator.classify(
                await asyncio.to_thread(read_sample, path, bundle.manifest.input)
            )

        yield ask


@asynccontextmanager
async def _through_running(
    address: str, credentials: "Credentials", deadline: float | None
) -> AsyncIterator["Ask"]:
    import asyncio

    from edvit_tf.fleet.messages import answer_of
    from edvit_tf.rpc.aggregator_channel import AggregatorLink

    link = AggregatorLink(address, credentials)

    async def ask(path: Path) -> "Answer":
        seconds = (deadline or MOST_PATIENCE) + 1.0
        data = await asyncio.to_thread(path.read_bytes)
        return answer_of(await link.classify(data, seconds=deadline, timeout=seconds))

    try:
        yield ask
    finally:
        await link.close()


def sentence(path: Path, answer: "Answer") -> str:
    """Say an answer in one line."""
    said = f"{path}: {answer.label} ({max(answer.probabilities):.0%}, {answer.milliseconds:.0f} ms)"
    if answer.complete:
        return said
    weak = f"; weak: {', '.join(answer.weak_classes)}" if answer.weak_classes else ""
    return f"{said}, from {answer.answered} of {answer.expected} sub-models{weak}"
