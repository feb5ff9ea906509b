"""`edvit-tf fleet init | token | adopt`: who belongs to the fleet."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edvit_tf.cli.output import JsonOption, emit, qr_code, show

if TYPE_CHECKING:
    from edvit_tf.fleet import Announced
    from edvit_tf.fleet.keys import FleetKeys
    from edvit_tf.fleet.member import Connect

PASSPHRASE = "EDVIT_PASSPHRASE"  # noqa: S105

StateOption = Annotated[
    Path | None, typer.Option("--state", help="Folder of the fleet (default: the user's data folder).")
]


def keys_in(folder: Path) -> "FleetKeys":
    """The fleet's keys; raises TrustError where no fleet was made."""
    from edvit_tf.fleet.keys import load_keys

    return load_keys(folder, os.environ.get(PASSPHRASE, ""))


def connect_in(folder: Path) -> "Connect":
    """How to reach the devices of the fleet in this folder; raises TrustError where no fleet was made."""
    from edvit_tf.fleet.connect import with_keys
    from edvit_tf.fleet.hold import running

    served = running(folder)
    return with_keys(keys_in(folder), relay=served.grpc if served else "")


def init(
    state: StateOption = None,
    encrypt: Annotated[
        bool, typer.Option("--encrypt", help=f"Encrypt the owner's keys with the passphrase in {PASSPHRASE}.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Make a fleet's keys: an authority that says who belongs to it, and a key that signs bundles."""
    from edvit_tf.errors import UsageError
    from edvit_tf.fleet.keys import KEYS, make_keys
    from edvit_tf.fleet.state import default_folder
    from edvit_tf.rpc.certificates import fingerprint

    passphrase = os.environ.get(PASSPHRASE, "")
    if encrypt and not passphrase:
        raise UsageError(f"--encrypt takes the passphrase from {PASSPHRASE}: set it first")
    folder = state or default_folder()
    made = make_keys(folder, passphrase if encrypt else "")
    if json:
        emit({"keys": folder / KEYS, "fingerprint": fingerprint(made.authority.certificate).hex()})
        return
    show(f"The fleet's keys are in {folder / KEYS}: keep a copy where nobody else can read it.")
    show("Next, on a device: edvit-tf device run, then here: edvit-tf fleet adopt")


def token(
    state: StateOption = None,
    uses: Annotated[int, typer.Option(min=1, max=1000, help="How many devices may join with it.")] = 1,
    hours: Annotated[float, typer.Option(min=0.01, max=24 * 365, help="How long it is valid.")] = 24.0,
    show_all: Annotated[bool, typer.Option("--list", help="List the tokens instead.")] = False,
    revoke: Annotated[str | None, typer.Option(help="Revoke the token with this id instead.")] = None,
    qr: Annotated[bool, typer.Option("--qr", help="Show it as a QR code, too, for a phone.")] = False,
    json: JsonOption = False,
) -> None:
    """Make a token with which machines that nobody sits at join: edvit-tf device run --join TOKEN."""
    from datetime import timedelta

    from edvit_tf.fleet.state import default_folder
    from edvit_tf.fleet.tokens import Tokens
    from edvit_tf.rpc.certificates import fingerprint

    folder = state or default_folder()
    keys = keys_in(folder)
    tokens = Tokens(folder)
    if revoke is not None:
        tokens.revoke(revoke)
        if json:
            emit({"revoked": revoke})
        else:
            show(f"{revoke} is revoked; devices that have joined with it stay")
        return
    if show_all:
        rows = [{"id": each.id, "uses": each.uses, "expires": each.expires} for each in tokens.all()]
        if json:
            emit(rows)
        for row in [] if json else rows:
            show(f"{row['id']}: {row['uses']} uses left, until {row['expires']}")
        return
    made = tokens.issue(fingerprint(keys.authority.certificate), uses=uses, life=timedelta(hours=hours))
    if json:
        emit({"id": made.id, "token": str(made)})
    else:
        show(str(made))
        if qr:
            show(qr_code(str(made)))


def adopt(
    device: Annotated[str, typer.Argument(help="Its name or the beginning of its id.")] = "",
    code: Annotated[str | None, typer.Option(help="The code that it shows (default: ask).")] = None,
    state: StateOption = None,
    address: Annotated[
        str | None, typer.Option(help="Its pairing port as host:port, instead of looking for it.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.1, max=600.0, help="Seconds to look for it.")] = 3.0,
    json: JsonOption = False,
) -> None:
    """Make a device that shows a pairing code a member of the fleet."""
    import asyncio

    from edvit_tf.fleet import Announced
    from edvit_tf.fleet.enrol import enrol
    from edvit_tf.fleet.state import FleetState, default_folder
    from edvit_tf.rpc.pairing import read_code
    from edvit_tf.rpc.pairing_channel import PairingLink

    folder = state or default_folder()
    keys = keys_in(folder)
    place, device_id = (address, "") if address else asyncio.run(_waiting(device, timeout))
    secret = read_code(code if code is not None else typer.prompt("Code", err=True))
    member = asyncio.run(enrol(PairingLink(place).pair, keys, lambda _: secret, expected_id=device_id))
    with FleetState(folder) as remembered:
        remembered.enrol(Announced(place, member.id, member.name))
    if json:
        emit({"id": member.id, "name": member.name})
    else:
        show(f"{member.name} is a member of the fleet (id {member.id[:12]})")


async def _waiting(wanted: str, timeout: float) -> tuple[str, str]:
    """Where the one device that is meant waits, and its id."""
    from edvit_tf.errors import UsageError
    from edvit_tf.fleet import discover

    found = [
        device
        for device in await discover(timeout)
        if device.pair and (device.name == wanted or device.id.startswith(wanted))
    ]
    if len(found) == 1:
        return found[0].pair, found[0].id
    if not found:
        raise UsageError(
            f"no device called {wanted!r} waits to be adopted: run `edvit-tf device run` there, "
            "or give --address"
        )
    rows = ", ".join(f"{device.name} {device.id[:12]} at {device.pair}" for device in found)
    raise UsageError(f"several devices wait: name one by its id ({rows})")


async def take_joining(found: list["Announced"], keys: "FleetKeys", folder: Path) -> int:
    """Enrol the devices that wait with a join token of this fleet; how many there were."""
    from edvit_tf.cli.output import say
    from edvit_tf.errors import EdvitError
    from edvit_tf.fleet import Announced
    from edvit_tf.fleet.enrol import enrol
    from edvit_tf.fleet.state import FleetState
    from edvit_tf.fleet.tokens import Tokens
    from edvit_tf.rpc.pairing_channel import PairingLink

    tokens = Tokens(folder)
    taken = 0
    for device in found:
        if not device.pair:
            continue
        try:
            member = await enrol(
                PairingLink(device.pair).pair,
                keys,
                tokens.secret,
                expected_id=device.id,
                on_proved=tokens.use,
            )
        except EdvitError as error:
            say(f"{device.name} was not taken: {error.message}")
        else:
            with FleetState(folder) as state:
                state.enrol(Announced(device.address, member.id, member.name))
            say(f"{member.name} has joined the fleet (id {member.id[:12]})")
            taken += 1
    return taken
