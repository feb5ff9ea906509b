"""`edvit-tf infer`: classify pictures or sounds through the fleet, or through a bundle in this process."""

from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edvit_tf.cli.output import JsonOption, emit, show

if TYPE_CHECKING:
    from edvit_tf.bundle.reader import Bundle
    from edvit_tf.fleet import Aggregator, Answer


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
    json: JsonOption = False,
) -> None:
    """Classify pictures or sounds: one line for each, as it comes."""
    import asyncio

    from edvit_tf.bundle.sample import find_samples, read_sample
    from edvit_tf.errors import UsageError

    if state and local:
        raise UsageError("give either --state (the fleet) or --local (a bundle in this process), not both")
    bundle, opening = _choose(state, local, deadline)
    paths = find_samples(images, bundle.manifest.input)

    async def work() -> None:
        async with opening as aggregator:
            for path in paths:
                image = await asyncio.to_thread(read_sample, path, bundle.manifest.input)
                answer = await aggregator.classify(image)
                if json:
                    emit({"image": path, **answer.to_json()})
                else:
                    show(sentence(path, answer))

    asyncio.run(work())


def _choose(
    state: Path | None, local: Path | None, deadline: float | None
) -> tuple["Bundle", AbstractAsyncContextManager["Aggregator"]]:
    from edvit_tf.bundle.reader import open_bundle
    from edvit_tf.cli import local as in_process
    from edvit_tf.cli.trust import connect_in
    from edvit_tf.fleet import Aggregator
    from edvit_tf.fleet.dispatch import DEFAULT_DEADLINE
    from edvit_tf.fleet.state import default_folder, load

    if local is not None:
        bundle = open_bundle(local)
        return bundle, in_process.local_aggregator(bundle, deadline=deadline or in_process.DEADLINE)
    folder = state or default_folder()
    bundle, deployment = load(folder)
    connect = connect_in(folder)
    return bundle, Aggregator(bundle, deployment, deadline=deadline or DEFAULT_DEADLINE, connect=connect)


def sentence(path: Path, answer: "Answer") -> str:
    """Say an answer in one line."""
    said = f"{path}: {answer.label} ({max(answer.probabilities):.0%}, {answer.milliseconds:.0f} ms)"
    if answer.complete:
        return said
    weak = f"; weak: {', '.join(answer.weak_classes)}" if answer.weak_classes else ""
    return f"{said}, from {answer.answered} of {answer.expected} sub-models{weak}"
