"""`edvit-tf cache`: what exports keep of their stages, how much that is, and a way to have less of it."""

import datetime
from pathlib import Path
from typing import Annotated

import typer

from edvit_tf.cli.output import JsonOption, emit, show

FolderArgument = Annotated[
    Path | None,
    typer.Argument(help="The cache; by default EDVIT_CACHE, or edvit-cache in the current folder."),
]
LimitOption = Annotated[
    float | None,
    typer.Option("--limit-mb", min=0, help="Remove what was used longest ago until it holds at most this."),
]


def cache(folder: FolderArgument = None, limit_mb: LimitOption = None, json: JsonOption = False) -> None:
    """Show what exports keep of their stages, the longest unused first; remove some of it, or all."""
    from rich.table import Table

    from edvit_tf.build.store import contents, default_folder, trim

    place = folder or default_folder(Path.cwd())
    removed = trim(place, round(limit_mb * _MEGABYTE)) if limit_mb is not None else 0
    found = contents(place)
    if json:
        emit(
            {
                "folder": place,
                "bytes": sum(stored.bytes for stored in found),
                "removed_bytes": removed,
                "results": [
                    {"name": stored.name, "bytes": stored.bytes, "used": _when(stored.used)}
                    for stored in found
                ],
            }
        )
        return
    table = Table("stage", "results", "MB", "last used")
    for column in table.columns[1:3]:
        column.justify = "right"
    stages = dict.fromkeys(stored.stage for stored in found)
    for stage in stages:
        of_stage = [stored for stored in found if stored.stage == stage]
        size = sum(stored.bytes for stored in of_stage)
        last = max(stored.used for stored in of_stage)
        table.add_row(stage, str(len(of_stage)), f"{size / _MEGABYTE:.1f}", _when(last))
    show(table)
    total = sum(stored.bytes for stored in found)
    freed = f", {removed / _MEGABYTE:.1f} MB were removed" if limit_mb is not None else ""
    show(f"{place}: {total / _MEGABYTE:.1f} MB{freed}.")
    show(f"Remove all of it with: edvit-tf cache {place} --limit-mb 0")


_MEGABYTE = 1_000_000


def _when(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")
