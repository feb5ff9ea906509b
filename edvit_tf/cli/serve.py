"""`edvit-tf serve`: the aggregator as a process that answers pictures over HTTP and gRPC."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edvit_tf.cli.output import JsonOption, emit, show
from edvit_tf.cli.trust import PASSPHRASE
from edvit_tf.cli.units import (
    Service,
    UnitFolderOption,
    UserOption,
    install,
    options,
    user_of_system_service,
)
from edvit_tf.cli.watchdog import living, notify
from edvit_tf.cli.wire import WireOption, WireQualityOption

if TYPE_CHECKING:
    from edvit_tf.fleet.hold import Running

MEGABYTE = 1_000_000


def serve(
    bundle: Annotated[
        Path | None, typer.Argument(help="A bundle to deploy first (default: what is deployed).")
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option("--state", "--fleet", help="Folder of the fleet (default: the user's data folder)."),
    ] = None,
    http: Annotated[str, typer.Option(help="Where to answer HTTP, as IP:port.")] = "127.0.0.1:8080",
    grpc: Annotated[str, typer.Option(help="Where to answer the owner's programs.")] = "127.0.0.1:7435",
    listen: Annotated[
        str, typer.Option(help="Where devices that cannot be called may dial in (default: nowhere).")
    ] = "",
    deadline: Annotated[float, typer.Option(min=0.01, max=60.0, help="Seconds for an answer.")] = 2.0,
    in_flight: Annotated[
        int, typer.Option(min=1, max=10_000, help="Pictures that are answered at once; more are told busy.")
    ] = 16,
    picture_mb: Annotated[
        float, typer.Option(min=0.001, max=1000.0, help="Megabytes that a picture's file may have.")
    ] = 7.0,
    wire: WireOption = "auto",
    wire_quality: WireQualityOption = None,
    install_service: Annotated[
        bool, typer.Option("--install-service", help="Write a systemd unit that does this, and stop.")
    ] = False,
    user: UserOption = None,
    unit_folder: UnitFolderOption = None,
    json: JsonOption = False,
) -> None:
    """Answer pictures through the fleet until SIGTERM or Ctrl-C; what goes on is logged as JSON lines."""
    import asyncio
    import sys
    import warnings
    from dataclasses import asdict

    from edvit_tf.cli.fleet import deploy
    from edvit_tf.errors import MissingPackage
    from edvit_tf.fleet.state import default_folder
    from edvit_tf.fleet.wire import WireSettings
    from edvit_tf.json_lines import log_json
    from edvit_tf.rpc.address import listen_address

    try:
        from edvit_tf.fleet.serve.front import Bounds
        from edvit_tf.fleet.serve.service import ServeSettings
        from edvit_tf.fleet.serve.service import serve as run
    except ModuleNotFoundError as error:
        raise MissingPackage(f"serve needs {error.name}: pip install 'edvit-tf[serve]'") from None

    settings = ServeSettings(
        folder=state or default_folder(),
        http=listen_address(http, "--http"),
        grpc=listen_address(grpc, "--grpc"),
        bounds=Bounds(in_flight, int(picture_mb * MEGABYTE), deadline),
        passphrase=os.environ.get(PASSPHRASE, ""),
        wire=WireSettings(wire, wire_quality),
        inward=listen_address(listen, "--listen") if listen else None,
    )
    if install_service:
        folder = settings.folder.absolute()
        given = [("--state", folder), ("--http", http), ("--grpc", grpc), ("--listen", listen)]
        given += [("--deadline", deadline), ("--in-flight", in_flight), ("--picture-mb", picture_mb)]
        arguments = options([*given, ("--wire", wire), ("--wire-quality", wire_quality)])
        service = Service(
            name="edvit-aggregator",
            description="The aggregator of an edvit-tf fleet",
            arguments=("serve", *arguments),
            folder=folder,
            stop_seconds=int(settings.bounds.longest_deadline) + 15,
            user=user_of_system_service(user),
        )
        install(service, unit_folder, json=json)
        return
    if bundle is not None:
        deploy(bundle, state=state, listen=listen, json=json)
    log_json(sys.stderr)
    # Strange pictures make warnings of endlessly many texts, and Python would remember each.
    warnings.filterwarnings("ignore", module="PIL")

    def on_ready(running: "Running") -> None:
        notify("READY=1")
        if json:
            emit(asdict(running))
        else:
            show(
                f"Pictures are answered at http://{running.http}/v1/classify (see http://{running.http}/docs)"
            )
            if running.inward:
                show(f"Devices may dial in at {running.inward}")

    async def work() -> None:
        async with living():
            await run(settings, on_ready)

    asyncio.run(work())
