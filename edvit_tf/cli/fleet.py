"""`edvit-tf fleet discover | deploy | rollback`: the devices, and what they hold."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edvit_tf.cli.fleet_benchmark import benchmark
from edvit_tf.cli.operate import drain, logs, placements, print_rows, remove, status
from edvit_tf.cli.output import JsonOption, emit, say, screen, show
from edvit_tf.cli.reach import dialled_at_running, reaching
from edvit_tf.cli.trust import adopt, connect_in, init, keys_in, take_joining, token

if TYPE_CHECKING:
    from edvit_tf.fleet import Announced, DeviceStatus, Progress
    from edvit_tf.fleet.transfer import OnProgress

# How often to see who has dialled in.
LOOK_SECONDS = 0.25

app = typer.Typer(help="The devices of a fleet, and what they hold.", no_args_is_help=True)
app.command()(init)
app.command()(token)
app.command()(adopt)
app.command()(status)
app.command()(placements)
app.command()(logs)
app.command()(drain)
app.command()(remove)
app.command()(benchmark)

StateOption = Annotated[
    Path | None, typer.Option("--state", help="Folder of the deployment (default: the user's data folder).")
]
AddressOption = Annotated[
    list[str] | None,
    typer.Option("--address", help="A device as host:port instead of looking for devices; repeatable."),
]
ListenOption = Annotated[
    str,
    typer.Option(
        "--listen", help="Where devices may dial in meanwhile, as IP:port, unless an aggregator runs."
    ),
]
TimeoutOption = Annotated[
    float, typer.Option("--timeout", min=0.1, max=600.0, help="Seconds to look for devices.")
]


@app.command("discover")
def discover(
    timeout: TimeoutOption = 3.0,
    devices: Annotated[int | None, typer.Option(min=1, help="Stop looking when so many are found.")] = None,
    address: AddressOption = None,
    state: StateOption = None,
    json: JsonOption = False,
) -> None:
    """List the devices on the network, and what each says of itself: without keys, what it announces."""
    import asyncio

    from edvit_tf.fleet import survey
    from edvit_tf.fleet.deploy import NO_DEVICE
    from edvit_tf.fleet.keys import has_keys
    from edvit_tf.fleet.state import default_folder
    from edvit_tf.fleet.survey import listed

    folder = state or default_folder()
    connect = connect_in(folder) if has_keys(folder) else None

    async def work() -> list["DeviceStatus"]:
        found = await _find(timeout, devices, address, dialled=partial(dialled_at_running, folder))
        return listed(found) if connect is None else await survey(found, connect=connect)

    rows = asyncio.run(work())
    if not rows and not json:
        show(f"{NO_DEVICE[0].upper()}{NO_DEVICE[1:]}.")
        return
    print_rows(rows, json=json)


@app.command("deploy")
def deploy(
    bundle: Annotated[Path, typer.Argument(help="The folder that edvit-tf export wrote.")],
    state: StateOption = None,
    timeout: TimeoutOption = 5.0,
    devices: Annotated[int | None, typer.Option(min=1, help="Stop looking when so many are found.")] = None,
    address: AddressOption = None,
    watch: Annotated[bool, typer.Option("--watch", help="Draw the progress of each device.")] = False,
    outage: Annotated[
        bool, typer.Option("--outage", help="Accept more sub-models out on the way than the fusion bears.")
    ] = False,
    expires: Annotated[
        datetime | None,
        typer.Option(
            "--expires",
            formats=["%Y-%m-%d"],
            help="From this day on (UTC) devices do not install it any more (default: what the bundle says).",
        ),
    ] = None,
    listen: ListenOption = "",
    json: JsonOption = False,
) -> None:
    """Place the sub-models of a bundle on the devices, send them, and remember who has what.

    An older version answers until every device holds the new one; if one fails, all go back. A deploy that
    was interrupted goes on when it is run again.
    """
    import asyncio

    from edvit_tf.bundle.reader import open_bundle
    from edvit_tf.errors import LinkError, UsageError
    from edvit_tf.fleet import Deployment
    from edvit_tf.fleet import deploy as deploy_to
    from edvit_tf.fleet.deploy import NO_DEVICE
    from edvit_tf.fleet.joining import expects_joining
    from edvit_tf.fleet.keeper import changed_over
    from edvit_tf.fleet.signing import signed
    from edvit_tf.fleet.state import FleetState, default_folder, save

    if expires is not None and expires.replace(tzinfo=UTC) <= datetime.now(UTC):
        raise UsageError(f"--expires {expires:%Y-%m-%d} is over: name a day to come")
    opened = open_bundle(bundle)
    wanted = devices or (None if address else len(opened.manifest.submodels))
    folder = state or default_folder()
    keys = keys_in(folder)
    ends = f"{expires:%Y-%m-%dT%H:%M:%SZ}" if expires is not None else None
    opened = signed(opened, keys, folder, expires=ends)

    with FleetState(folder) as remembered:
        excluded = {device.id for device in remembered.devices() if device.drained} | remembered.removed()

    async def work() -> Deployment:
        async with reaching(folder, keys, listen) as reach:
            # Whoever was found first must not keep those out that wait to join.
            expected = None if expects_joining(folder) else wanted
            found = await _find(timeout, expected, address, dialled=reach.dialled, settled=bool(listen))
            if await take_joining(found, keys, folder):
                found = await _find(timeout, wanted, address, dialled=reach.dialled, settled=True)
            found = [device for device in found if not device.pair]
            if not found:
                raise LinkError(NO_DEVICE, code="link.no_device")
            with _bars() if watch else nullcontext(_say_serving) as on_progress:
                return await deploy_to(
                    opened,
                    found,
                    connect=reach.connect,
                    on_progress=on_progress,
                    on_switch=remember,
                    outage=outage,
                    excluded=excluded,
                )

    async def remember(deployment: Deployment) -> None:
        # From here on the new version answers, also when this process is killed before the devices settle.
        await asyncio.to_thread(save, folder, opened, deployment)
        await changed_over(folder)

    deployment = asyncio.run(work())
    rows = [
        {
            "submodel": submodel,
            "device": device.id,
            "name": device.name,
            "address": device.address,
            "classes": list(opened.manifest.submodel(submodel).classes),
        }
        for device in deployment.devices
        for submodel in deployment.submodels_of(device.id)
    ]
    if json:
        emit(
            {
                "bundle": opened.manifest.name,
                "bundle_version": opened.manifest.version,
                "state": folder,
                "placement": rows,
            }
        )
        return
    for row in rows:
        show(f"{row['submodel']} serves on {row['name']} ({row['address']})")
    option = f" --state {state}" if state else ""
    show(f"Next: edvit-tf infer{option} PICTURE\n      edvit-tf fleet status{option}")


@app.command("rollback")
def rollback(
    bundle: Annotated[Path, typer.Argument(help="The older bundle to go back to.")],
    state: StateOption = None,
    timeout: TimeoutOption = 5.0,
    address: AddressOption = None,
    listen: ListenOption = "",
    json: JsonOption = False,
) -> None:
    """Sign the decision to replace what is deployed by an older version, and deploy that."""
    import asyncio

    from edvit_tf.bundle.reader import open_bundle
    from edvit_tf.fleet.discover import DIALLED
    from edvit_tf.fleet.signing import rolled_back
    from edvit_tf.fleet.state import default_folder, load
    from edvit_tf.fleet.survey import newest_version

    folder = state or default_folder()
    keys = keys_in(folder)
    now, _ = load(folder)
    older = open_bundle(bundle)

    async def look() -> tuple[list["Announced"], int]:
        async with reaching(folder, keys, listen) as reach:
            wanted = None if address else len(older.manifest.submodels)
            found = await _find(timeout, wanted, address, dialled=reach.dialled, settled=bool(listen))
            return found, await newest_version(found, older.manifest.name, connect=reach.connect)

    found, held = asyncio.run(look())
    decided = rolled_back(older, keys, folder, newest=max(now.manifest.version, held))
    there = [device.address for device in found if not device.pair]
    # Those that have dialled in do so again, from elsewhere.
    named = [place for place in there if not place.startswith(DIALLED)]
    deploy(
        decided.path,
        state=state,
        timeout=timeout,
        devices=len(there) or None,
        address=named,
        listen=listen,
        json=json,
    )


async def _find(
    timeout: float,
    expected: int | None,
    addresses: list[str] | None,
    *,
    dialled: Callable[[], list["Announced"]],
    settled: bool = False,
) -> list["Announced"]:
    """Devices named by hand, and if these are none or fewer than expected, all others that can be found.

    `dialled` says who has dialled in. With `settled` announcements are waited for the whole time, unless
    enough devices dial in.
    """
    import asyncio

    from edvit_tf.fleet import at_address
    from edvit_tf.fleet import discover as browse

    async def until_enough(most: int) -> None:
        while len(named) + len(dialled()) < most:  # noqa: ASYNC110 (it is in another process's state)
            await asyncio.sleep(LOOK_SECONDS)

    named = [at_address(address) for address in addresses or []]
    if named and (expected is None or expected <= len(named)):
        return named
    browsing = asyncio.create_task(browse(timeout, expected=None if settled else expected))
    tasks: set[asyncio.Task[Any]] = {browsing}
    if expected is not None:
        tasks.add(asyncio.create_task(until_enough(expected)))
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    found = browsing.result() if browsing.done() else []
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    known = {device.address for device in named}
    return named + dialled() + [device for device in found if device.address not in known]


def _say_serving(progress: "Progress") -> None:
    if progress.step == "serving":
        say(f"{progress.device} has proved {progress.submodel} ({progress.total} bytes)")


@contextmanager
def _bars() -> Iterator["OnProgress"]:
    """One bar for each sub-model on its device, on standard error."""
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    tasks: dict[str, TaskID] = {}
    with Bars(console=screen) as bars:

        def on_progress(progress: "Progress") -> None:
            text = f"{progress.submodel} → {progress.device}: {progress.step}"
            if progress.submodel not in tasks:
                tasks[progress.submodel] = bars.add_task(text, total=progress.total)
            bars.update(tasks[progress.submodel], description=text, completed=progress.sent)

        yield on_progress
