"""The options that say in which codec devices are sent pictures."""

from typing import Annotated

import typer

WireOption = Annotated[
    str,
    typer.Option(
        "--wire", help="How devices are sent pictures: auto (as each link needs it), raw, jpeg or webp."
    ),
]
WireQualityOption = Annotated[
    int | None,
    typer.Option(
        "--wire-quality", help="Of jpeg (default 95) or webp (default: nothing is lost), from 1 to 100."
    ),
]
