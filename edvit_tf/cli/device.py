"""`edvit-tf device run | install-service | leave`: be a device of a fleet."""

import os
from pathlib import Path
from typing import Annotated

import typer

from edvit_tf.cli.output import JsonOption, emit, qr_code, say, show
from edvit_tf.cli.units import (
    Service,
    UnitFolderOption,
    UserOption,
    install,
    options,
    user_of_system_service,
)
from edvit_tf.cli.watchdog import living, notify

app = typer.Typer(help="Be a device of a fleet.", no_args_is_help=True)

MEGABYTE = 1_000_000
LARGEST_MEMORY_MB = 1e9


@app.callback()
def _device() -> None:
    pass


NameOption = Annotated[str, typer.Option(help="What people call this device (default: the host's name).")]
StoreOption = Annotated[
    Path | None, typer.Option(help="Folder for its key and sub-models (default: the user's data folder).")
]
PortOption = Annotated[int, typer.Option(help="TCP port; 0 takes any free one.")]
InterfaceOption = Annotated[
    str, typer.Option(help="IPv4 address of this machine to listen on (default: all of them).")
]
MemoryOption = Annotated[
    float | None, typer.Option(help="Megabytes given to sub-models (default: half of the memory).")
]
JoinOption = Annotated[
    str | None,
    typer.Option("--join", help="Join a fleet with this token (edvit-tf fleet token), without a code."),
]


DialOption = Annotated[
    str,
    typer.Option(
        "--dial",
        help="Listen nowhere, and open the connection to an aggregator (serve --listen): host:port, or auto "
        "for where it is announced.",
    ),
]
DelegateOption = Annotated[
    str, typer.Option("--delegate", help="Compute on an accelerator: edgetpu (needs libedgetpu.so.1).")
]


@app.command("run")
def run(
    name: NameOption = "",
    store: StoreOption = None,
    port: PortOption = 7434,
    interface: InterfaceOption = "0.0.0.0",  # noqa: S104
    memory_mb: MemoryOption = None,
    join: JoinOption = None,
    dial: DialOption = "",
    delegate: DelegateOption = "",
    json: JsonOption = False,
) -> None:
    """Announce this machine, take sub-models and run them, until SIGTERM or Ctrl-C.

    A new device shows a code first, with which edvit-tf fleet adopt takes it.
    """
    import asyncio
    import logging
    import shlex
    import socket
    import warnings
    from dataclasses import asdict

    from edvit_tf.device.agent import DeviceSettings, Ready, Waiting, run_device
    from edvit_tf.errors import UsageError
    from edvit_tf.rpc.pairing import read_token

    if memory_mb is not None and not 0 < memory_mb < LARGEST_MEMORY_MB:
        raise UsageError(f"--memory-mb must be more than 0, not {memory_mb}")
    settings = DeviceSettings(
        name=name or socket.gethostname(),
        store=store or _default_store(),
        port=port,
        interface=interface,
        memory_bytes=None if memory_mb is None else int(memory_mb * MEGABYTE),
        token=read_token(join) if join else None,
        dial=dial,
        delegate=delegate,
    )
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")

    def on_ready(ready: Ready) -> None:
        notify("READY=1")
        if json:
            emit(asdict(ready))
        elif ready.dials:
            where = "where its aggregator is announced" if ready.dials == "auto" else ready.dials
            show(f"{ready.name} is ready and dials {where} (id {ready.id[:12]})")
        else:
            show(f"{ready.name} is ready at {ready.address}:{ready.port} (id {ready.id[:12]})")

    def on_waiting(waiting: Waiting) -> None:
        notify("READY=1")
        if json:
            emit({"waiting": asdict(waiting)})
        elif waiting.code:
            show(f"{waiting.name} waits to be adopted. Its code is {waiting.code}")
            show(qr_code(waiting.link))
            show(f"On the aggregator: edvit-tf fleet adopt {shlex.quote(waiting.name)}")
        else:
            show(f"{waiting.name} waits for its fleet: any `edvit-tf fleet deploy` there takes it")

    # Strange pictures make warnings of endlessly many texts, and Python would remember each.
    warnings.filterwarnings("ignore", module="PIL")

    async def work() -> None:
        async with living():
            await run_device(settings, on_ready, on_waiting=on_waiting)

    asyncio.run(work())
    say(f"{settings.name} has stopped")


@app.command("install-service")
def install_service(
    name: NameOption = "",
    store: StoreOption = None,
    port: PortOption = 7434,
    interface: InterfaceOption = "0.0.0.0",  # noqa: S104
    memory_mb: MemoryOption = None,
    join: JoinOption = None,
    dial: DialOption = "",
    delegate: DelegateOption = "",
    user: UserOption = None,
    unit_folder: UnitFolderOption = None,
    json: JsonOption = False,
) -> None:
    """Write a systemd unit that runs this device from the start of the machine on.

    A new device's code is then in its journal. The options are those of device run.
    """
    from edvit_tf.device.dial import check_dial

    check_dial(dial)
    folder = (store or _default_store()).absolute()
    given = [("--name", name), ("--store", folder), ("--port", port), ("--interface", interface)]
    arguments = options(
        [*given, ("--memory-mb", memory_mb), ("--join", join), ("--dial", dial), ("--delegate", delegate)]
    )
    service = Service(
        name="edvit-device",
        description="A device of an edvit-tf fleet",
        arguments=("device", "run", *arguments),
        folder=folder,
        stop_seconds=15,
        user=user_of_system_service(user),
    )
    install(service, unit_folder, json=json)


@app.command("leave")
def leave(
    store: StoreOption = None,
    new_key: Annotated[
        bool, typer.Option("--new-key", help="Forget the key and the id, too, because the key was copied.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Forget the fleet that this device belongs to, so that another can adopt it; it keeps its id."""
    from edvit_tf.device.membership import leave_fleet
    from edvit_tf.device.store import Store

    opened = Store(store or _default_store())
    try:
        left = leave_fleet(opened, new_key=new_key)
    finally:
        opened.close()
    if json:
        emit({"left": left})
    else:
        show("The device belongs to no fleet now" if left else "The device belonged to no fleet")


def _default_store() -> Path:
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "edvit-tf" / "device"
