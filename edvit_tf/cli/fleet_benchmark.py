"""`edvit-tf fleet benchmark`: what a fleet costs beside gRPC itself, and how soon it notices things."""

from pathlib import Path
from typing import Annotated

import typer

from edvit_tf.cli.output import JsonOption, emit, say, show


def benchmark(
    bundle: Annotated[
        Path | None, typer.Argument(help="A bundle with which failover is measured, too.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, max=1000, help="Rounds; each measures everything.")] = 20,
    json: JsonOption = False,
) -> None:
    """Measure on this machine's loopback, with devices as processes.

    overhead_ratio: the median of a whole answer from ten devices that do no work, over the median of ten bare
    calls with as many bytes. throughput_ratio: the same, answers a second. discover_seconds: until 30 devices
    that announce themselves are found. failover_seconds: from a device that is killed to a complete answer.
    """
    import asyncio

    from edvit_tf.cli.measure_fleet import measure_answers, measure_discovery, measure_failover

    say("ten devices that do no work, and bare calls to the same processes")
    figures = asyncio.run(measure_answers(rounds)).to_json()
    say("thirty devices that announce themselves")
    figures["discover_seconds"] = measure_discovery()
    if bundle is not None:
        say("a device that is killed, with room for its sub-model elsewhere")
        figures["failover_seconds"] = measure_failover(bundle)
    if json:
        emit(figures)
        return
    for name, value in figures.items():
        show(f"{name}: {value:.4g}")
