"""`edvit-tf fleet status | placements | logs | drain | remove`: what an operator asks and decides.

All of them work through the fleet's state, whether an aggregator runs on it or not.
"""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edvit_tf.cli.output import JsonOption, emit, say, show
from edvit_tf.cli.trust import connect_in, keys_in

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from edvit_tf.fleet import DeviceStatus
    from edvit_tf.fleet.state import Event, FleetState, Known

StateOption = Annotated[
    Path | None, typer.Option("--state", help="Folder of the fleet (default: the user's data folder).")
]
DeviceArgument = Annotated[str, typer.Argument(help="Its name or the beginning of its id.")]

FOLLOW_SECONDS = 0.5


def status(state: StateOption = None, json: JsonOption = False) -> None:
    """Where every device of the fleet stands, since when and why."""
    import asyncio

    from edvit_tf.fleet import Announced
    from edvit_tf.fleet.hold import running
    from edvit_tf.fleet.renew import renew
    from edvit_tf.fleet.standing import refresh, rows_of
    from edvit_tf.fleet.state import default_folder

    folder = state or default_folder()
    with _opened(state) as opened:
        asyncio.run(refresh(opened, connect_in(folder)))
        devices = opened.devices()
        _, paused = opened.serving()
    print_rows(rows_of(devices), json=json)
    if running(folder) is not None:
        if paused:
            say(paused)
        return
    known = [Announced(device.address, device.id, device.name) for device in devices]
    for warning in asyncio.run(renew(known, keys_in(folder))):
        say(warning)


def placements(state: StateOption = None, json: JsonOption = False) -> None:
    """Which device could hold which sub-model now, and why the others could not."""
    import asyncio

    from edvit_tf.fleet.standing import placings, refresh
    from edvit_tf.fleet.state import default_folder

    folder = state or default_folder()
    with _opened(state) as opened:
        bundle, deployment = opened.deployed()
        asyncio.run(refresh(opened, connect_in(folder)))
        devices = opened.devices()
    names = {device.id: device.name for device in devices}
    made = placings(bundle, deployment, devices)
    if json:
        emit(
            [
                {
                    "submodel": placing.submodel,
                    "classes": list(bundle.manifest.submodel(placing.submodel).classes),
                    "home": placing.home,
                    "holder": placing.holder,
                    "options": [
                        {
                            "device": option.device,
                            "name": names[option.device],
                            "possible": not option.reason,
                            "reason": option.reason,
                        }
                        for option in placing.options
                    ],
                }
                for placing in made
            ]
        )
        return
    table = _table("sub-model", "home", "held by", "possible on", "not possible on")
    for placing in made:
        named = [(names[option.device] or option.device[:12], option.reason) for option in placing.options]
        table.add_row(
            placing.submodel,
            names.get(placing.home, placing.home[:12]),
            names.get(placing.holder, placing.holder[:12]),
            ", ".join(name for name, reason in named if not reason) or "none",
            _lines(*(f"{name}: {reason}" for name, reason in named if reason)),
        )
    show(table)


def logs(
    device: Annotated[
        str, typer.Argument(help="This one's own log instead: its name or its id's beginning.")
    ] = "",
    state: StateOption = None,
    last: Annotated[int, typer.Option(min=1, max=10_000, help="How many to begin with.")] = 50,
    follow: Annotated[bool, typer.Option("--follow", help="Go on as more happens, until Ctrl-C.")] = False,
    json: JsonOption = False,
) -> None:
    """What has happened in the fleet: who came and went, what moved and why; or one device's own log."""
    import time

    with _opened(state) as opened:
        if device:
            _device_log(opened, device, last, follow=follow, json=json)
            return
        _print_events(opened.events(last=last), opened, json=json)
        seen = max((event.number for event in opened.events(last=1)), default=0)
        while follow:
            time.sleep(FOLLOW_SECONDS)
            fresh = opened.events(after=seen)
            seen = max((event.number for event in fresh), default=seen)
            _print_events(fresh, opened, json=json)


def _device_log(state: "FleetState", device: str, last: int, *, follow: bool, json: bool) -> None:
    import asyncio

    from edvit_tf.fleet.connect import link_to
    from edvit_tf.fleet.hold import running
    from edvit_tf.fleet.journal import read_journal
    from edvit_tf.fleet.standing import named

    found = named(state.devices(), device)
    credentials = keys_in(state.folder).credentials
    served = running(state.folder)

    async def work() -> None:
        link = link_to(found.address, found.id, credentials, relay=served.grpc if served else "")
        try:
            async for line in read_journal(link, last=last, follow=follow):
                if json:
                    emit({"device": found.id, "name": found.name, **line.to_json()})
                else:
                    show(f"{line.time} {found.name} {line.level}: {line.message}")
        finally:
            await link.close()

    asyncio.run(work())


def drain(
    device: DeviceArgument,
    undo: Annotated[bool, typer.Option("--undo", help="Let it hold sub-models again.")] = False,
    state: StateOption = None,
    json: JsonOption = False,
) -> None:
    """Have a device hold nothing, so that it can be switched off without a gap."""
    from edvit_tf.fleet.hold import running
    from edvit_tf.fleet.standing import named

    with _opened(state) as opened:
        found = named(opened.devices(), device)
        opened.drain(found.id, drained=not undo)
        held = [] if undo else _held(opened, found)
    if json:
        emit({"device": found.id, "name": found.name, "drained": not undo, "holds": held})
        return
    if undo:
        show(f"{found.name} may hold sub-models again")
    elif not held:
        show(f"{found.name} holds nothing and is given nothing more")
    else:
        acts = running(opened.folder) is not None
        when = "now" if acts else "as soon as an aggregator runs (edvit-tf serve)"
        show(f"{', '.join(held)} moves from {found.name} {when}: see `edvit-tf fleet placements`")


def remove(
    device: DeviceArgument,
    force: Annotated[
        bool, typer.Option("--force", help="Also while it holds sub-models that nobody else holds.")
    ] = False,
    state: StateOption = None,
    json: JsonOption = False,
) -> None:
    """Throw a device out of the fleet: it is not asked or sent anything any more."""
    from edvit_tf.errors import UsageError
    from edvit_tf.fleet.standing import named

    with _opened(state) as opened:
        found = named(opened.devices(), device)
        held = _held(opened, found)
        if held and not force:
            raise UsageError(
                f"{found.name} holds {', '.join(held)}: run `edvit-tf fleet drain {found.name}` first, or "
                "add --force and go without until it has moved",
                code="fleet.holds",
            )
        opened.remove(found.id)
    if json:
        emit({"device": found.id, "name": found.name, "removed": True, "held": held})
    else:
        show(f"{found.name} is out of the fleet (id {found.id[:12]}): run `edvit-tf device leave` there")


def print_rows(rows: "Sequence[DeviceStatus]", *, json: bool) -> None:
    """The rows of `fleet status` and `fleet discover`."""
    if json:
        emit([row.to_json() for row in rows])
        return
    from edvit_tf.runtime.delegate import Accelerator

    # A terminal has 80 characters: few columns of several lines, and a reason has a line of its own.
    table = _table("device", "state", "machine", "holds")
    for row in rows:
        since = f"since {datetime.fromisoformat(row.since).astimezone():%d %b %H:%M}" if row.since else ""
        table.add_row(
            _lines(row.name, row.id[:12], row.address),
            _lines(row.state, since),
            _lines(_machine(row), row.runtime, row.accelerator and f"accelerator: {row.accelerator}"),
            _lines(_holds(row), f"{row.sent_bytes / 1e6:,.1f} MB sent, {row.codec}" if row.codec else ""),
        )
    show(table)
    for row in rows:
        if row.reason:
            show(f"{row.name or row.address} is {row.state}: {row.reason}")
    for row in rows:
        if row.accelerator_reason not in ("", Accelerator().reason):
            show(f"{row.name or row.address} has no accelerator: {row.accelerator_reason}")


def _table(*headers: str) -> "Table":
    """A table that leaves nothing out in a narrow terminal."""
    from rich.table import Column, Table

    return Table(*(Column(header, overflow="fold") for header in headers), show_lines=True)


def _machine(row: "DeviceStatus") -> str:
    cores = f"{row.cores} cores" if row.cores > 1 else "1 core" if row.cores else ""
    memory = f"{row.memory_mb:,.0f} MB" if row.memory_mb else ""
    return _lines(row.kind, ", ".join(filter(None, [cores, memory])))


def _holds(row: "DeviceStatus") -> str:
    if not row.bundle_version:
        return "nothing"
    return _lines(", ".join(row.submodels) or "nothing that serves", f"of version {row.bundle_version}")


def _lines(*lines: str) -> str:
    return "\n".join(filter(None, lines))


def _print_events(events: "Sequence[Event]", state: "FleetState", *, json: bool) -> None:
    names = {device.id: device.name for device in state.devices()}
    for event in events:
        when = datetime.fromtimestamp(event.at).astimezone().isoformat(timespec="seconds")
        who = names.get(event.device, event.device[:12])
        if json:
            emit({"at": when, "device": event.device, "name": who, "event": event.text})
        else:
            show(f"{when} {who} {event.text}" if who else f"{when} {event.text}")


def _opened(folder: Path | None) -> "FleetState":
    from edvit_tf.fleet.state import default_folder, open_state

    return open_state(folder or default_folder())


def _held(state: "FleetState", device: "Known") -> list[str]:
    """The sub-models that a device answers for."""
    from edvit_tf.errors import UsageError

    try:
        _, deployment = state.deployed()
    except UsageError:
        return []  # nothing is deployed yet
    return sorted(submodel for submodel in deployment.assignment if deployment.holder(submodel) == device.id)
