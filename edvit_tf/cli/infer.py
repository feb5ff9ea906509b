"""`edvit-tf infer`: classify pictures through the fleet, or through a bundle in this process."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edvit_tf.cli.output import JsonOption, emit, show

if TYPE_CHECKING:
    import numpy as np

    from edvit_tf.bundle.reader import Bundle
    from edvit_tf.fleet import Aggregator, Answer

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff")


def infer(
    images: Annotated[list[Path], typer.Argument(help="Pictures, or folders of pictures.")],
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
    """Classify pictures: one line for each, as it comes."""
    import asyncio

    from edvit_tf.bundle.picture import PictureSize, open_picture, prepare
    from edvit_tf.errors import UsageError

    if state and local:
        raise UsageError("give either --state (the fleet) or --local (a bundle in this process), not both")
    paths = pictures(images)

    def read(path: Path, size: PictureSize) -> "np.ndarray":
        return prepare(open_picture(path), size)

    async def work() -> None:
        bundle, opening = _choose(state, local, deadline)
        async with opening as aggregator:
            for path in paths:
                image = await asyncio.to_thread(read, path, bundle.manifest.input)
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


def pictures(images: Sequence[Path]) -> list[Path]:
    """Resolve files and folders (searched to the bottom, sorted) to pictures.

    Raises:
        DataError: there is no such file or folder, or a folder without a picture.
    """
    from edvit_tf.errors import DataError

    paths: list[Path] = []
    for image in images:
        if not image.is_dir():
            if not image.exists():
                raise DataError(f"there is no picture at {image}: give the path of a picture or a folder")
            paths.append(image)
            continue
        inside = sorted(path for path in image.rglob("*") if path.suffix.lower() in SUFFIXES)
        if not inside:
            raise DataError(f"the folder {image} holds no picture ({', '.join(SUFFIXES)})")
        paths += inside
    return paths


def sentence(path: Path, answer: "Answer") -> str:
    """Say an answer in one line."""
    said = f"{path}: {answer.label} ({max(answer.probabilities):.0%}, {answer.milliseconds:.0f} ms)"
    if answer.complete:
        return said
    weak = f"; weak: {', '.join(answer.weak_classes)}" if answer.weak_classes else ""
    return f"{said}, from {answer.answered} of {answer.expected} sub-models{weak}"
