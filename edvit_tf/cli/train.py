"""`edvit-tf train`: make a teacher."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from edvit_tf.cli.output import JsonOption, emit, say, show


def train(
    data: Annotated[str, typer.Option("--data", help="A registered data set, or a folder of class folders.")],
    preset: Annotated[str, typer.Option("--preset", help="What to train, for example fashion-vit.")],
    out: Annotated[Path, typer.Option("--out", help="The .safetensors file to write.")],
    seed: Annotated[
        int, typer.Option("--seed", min=0, max=2**32 - 1, help="Decides every random choice.")
    ] = 1,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Passes over the pictures.")] = None,
    batch: Annotated[int | None, typer.Option("--batch", min=1, help="Pictures in a step.")] = None,
    rate: Annotated[float | None, typer.Option("--rate", help="Highest learning rate.")] = None,
    json: JsonOption = False,
) -> None:
    """Train a Vision Transformer from scratch; the best epoch on validation is what is kept.

    The file holds the best epoch so far from the first epoch on, so Ctrl-C keeps what was reached; the same
    command goes on from there.
    """
    from dataclasses import replace

    from edvit_tf.cli.progress import bar
    from edvit_tf.errors import UsageError
    from edvit_tf.vit.checkpoint import Checkpoint, save
    from edvit_tf.vit.config import PRESETS

    if preset not in PRESETS:
        raise UsageError(f"There is no preset {preset}: choose one of {', '.join(PRESETS)}")
    if rate is not None and not rate > 0:
        raise UsageError(f"--rate is {rate}: it must be above 0")
    if out.suffix != ".safetensors":
        raise UsageError(f"{out} must end in .safetensors")
    state = out.with_suffix(".unfinished")
    if out.exists() and not state.exists():
        raise UsageError(f"{out} exists already: choose another --out, or move it away")

    from edvit_tf.build.data import load
    from edvit_tf.build.teacher import SCHEDULE, TeacherSettings, train_teacher

    config = PRESETS[preset]
    dataset = load(data, seed=seed, image=config.image)
    say(dataset.summary())
    schedule = replace(
        SCHEDULE,
        epochs=epochs or SCHEDULE.epochs,
        batch=batch or SCHEDULE.batch,
        rate=rate or SCHEDULE.rate,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    state.touch()  # from now on --out is ours, and not finished
    command = shlex.join(["edvit-tf", *sys.argv[1:]])

    def described(model: Checkpoint) -> Checkpoint:
        return replace(model, details={**model.details, "preset": preset, "command": command})

    with bar({"train": 1.0}) as progress:
        trained = train_teacher(
            config,
            dataset,
            TeacherSettings(seed, schedule),
            progress,
            keep=lambda model: save(out, described(model)),
            state=state,
        )
        save(out, described(trained))
    if json:
        emit({"model": out, "bytes": out.stat().st_size, **trained.details})
        return
    show(f"{out}: {trained.details['validation_accuracy']:.2%} on validation, {out.stat().st_size:,} bytes")
    given = shlex.join(["--model", str(out), "--data", data])
    show("Next:")
    show(f"  edvit-tf export {given} --devices 3 --out bundle")
