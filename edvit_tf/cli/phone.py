"""`edvit-tf phone list | install | push | benchmark | logs`: a phone on a cable or in the same network."""

from pathlib import Path
from typing import Annotated

import typer

from edvit_tf.cli.output import JsonOption, emit, say, show

app = typer.Typer(help="A phone on a cable or in the same network, by adb.", no_args_is_help=True)

PhoneOption = Annotated[
    str | None,
    typer.Option("--phone", help="Serial number, where several are connected (edvit-tf phone list)."),
]
BundleArgument = Annotated[Path, typer.Argument(help="A bundle folder.")]


@app.command(name="list")
def list_phones(
    seconds: Annotated[
        float, typer.Option("--timeout", min=0, max=60, help="Seconds to listen in the network.")
    ] = 2.0,
    json: JsonOption = False,
) -> None:
    """List the phones that adb sees, and those in the network that offer wireless debugging."""
    from dataclasses import asdict

    from edvit_tf.phone.adb import Adb
    from edvit_tf.phone.nearby import nearby

    phones = Adb().phones()
    others = [one for one in nearby(seconds) if one.address not in {phone.serial for phone in phones}]
    if json:
        emit({"phones": [asdict(phone) for phone in phones], "nearby": [asdict(one) for one in others]})
        return
    for phone in phones:
        state = "ready" if phone.ready else f"{phone.state}: {phone.advice}"
        show(f"{phone.serial} {phone.model or '(no model)'}: {state}")
    for one in others:
        show(f"{one.name} offers wireless debugging: adb pair it once, then adb connect {one.address}")
    if not phones and not others:
        show("No phone: plug one in with USB debugging on (Settings, System, Developer options).")


@app.command()
def install(
    apk: Annotated[Path, typer.Argument(help="The app, as Android Studio builds it.")],
    phone: PhoneOption = None,
    json: JsonOption = False,
) -> None:
    """Install the app on a phone, or a newer version of it, which keeps the phone's place in its fleet."""
    from edvit_tf.errors import UsageError
    from edvit_tf.phone.adb import Adb

    if not apk.is_file():
        raise UsageError(f"There is no file {apk}: android_bridge/README.md says how to build it.")
    adb = Adb()
    chosen = adb.choose(phone)
    adb.install(chosen, apk)
    if json:
        emit({"phone": chosen.serial, "installed": apk})
    else:
        show(f"{chosen.model or chosen.serial} has it: open the app there, and press Start")


@app.command()
def push(bundle: BundleArgument, phone: PhoneOption = None, json: JsonOption = False) -> None:
    """Copy a bundle's flatbuffers to a phone for measuring; to serve them, the phone joins the fleet."""
    from edvit_tf.bundle.reader import open_bundle
    from edvit_tf.phone.adb import Adb
    from edvit_tf.phone.files import push_bundle

    opened = open_bundle(bundle)
    adb = Adb()
    chosen = adb.choose(phone)
    pushed = push_bundle(adb, chosen, opened, say)
    if json:
        files = [{"file": one.file, "path": one.path, "bytes": one.bytes} for one in pushed.flatbuffers]
        emit({"phone": chosen.serial, "sent_bytes": pushed.sent_bytes, "flatbuffers": files})
    else:
        show(f"{len(pushed.flatbuffers)} flatbuffers are on {chosen.serial}, {pushed.sent_bytes} bytes sent")


@app.command()
def benchmark(
    bundle: BundleArgument,
    tool: Annotated[
        Path | None, typer.Option("--tool", help="TFLite's benchmark_model for this phone's processor.")
    ] = None,
    threads: Annotated[int, typer.Option("--threads", min=1, help="Threads of one call.")] = 1,
    runs: Annotated[int, typer.Option("--runs", min=1, help="Pictures for each flatbuffer.")] = 50,
    phone: PhoneOption = None,
    json: JsonOption = False,
) -> None:
    """Measure a bundle's flatbuffers on a phone with TFLite's own benchmark_model."""
    from dataclasses import asdict

    from rich.table import Table

    from edvit_tf.bundle.reader import open_bundle
    from edvit_tf.errors import UsageError
    from edvit_tf.phone.adb import Adb
    from edvit_tf.phone.benchmark import find_tool, measure
    from edvit_tf.phone.files import push_bundle

    if tool is not None and not tool.is_file():
        raise UsageError(f"There is no file {tool}: name the benchmark_model that --tool is to send.")
    opened = open_bundle(bundle)
    adb = Adb()
    chosen = adb.choose(phone)
    program = find_tool(adb, chosen, tool)
    rows = [
        (one, measure(adb, chosen, program, one, threads=threads, runs=runs))
        for one in push_bundle(adb, chosen, opened, say).flatbuffers
    ]
    if json:
        measured = [
            {"file": one.file, "format": one.format, "bytes": one.bytes, **asdict(row)} for one, row in rows
        ]
        emit({"phone": chosen.serial, "model": chosen.model, "threads": threads, "rows": measured})
        return
    table = Table("flatbuffer", "format", title=f"{chosen.model or chosen.serial}, {threads} thread(s)")
    for column in ("kB", "mean ms", "least ms", "start ms", "peak MB", "by XNNPACK"):
        table.add_column(column, justify="right")
    for one, row in rows:
        times = [f"{milliseconds:.2f}" for milliseconds in (row.mean_ms, row.least_ms, row.init_ms)]
        peak = "" if row.peak_mb is None else f"{row.peak_mb:.1f}"
        table.add_row(
            one.file, one.format or "whole model", f"{one.bytes / 1000:.1f}", *times, peak, row.xnnpack
        )
    show(table)


@app.command()
def logs(
    follow: Annotated[bool, typer.Option("--follow", help="Go on until Ctrl-C.")] = False,
    phone: PhoneOption = None,
    json: JsonOption = False,
) -> None:
    """Show what the app on a phone has logged (without a cable: edvit-tf fleet logs)."""
    from edvit_tf.phone.adb import Adb

    adb = Adb()
    chosen = adb.choose(phone)
    command = ["logcat", *([] if follow else ["-d"]), "-v", "time", "-s", "edvit"]
    for line in adb.lines(chosen, command):
        if json:
            emit({"phone": chosen.serial, "line": line})
        else:
            show(line)
