"""What `fleet deploy` leaves for `infer` and `fleet status`: a copy of the bundle, and who has what.

The copy is under its manifest's hash, and `fleet.json`, written last, names it: a crash leaves the old state.
"""

import hashlib
import json
import os
import secrets
import shutil
from pathlib import Path

from edvit_tf.bundle.reader import Bundle, open_bundle
from edvit_tf.errors import EdvitError, UsageError
from edvit_tf.fleet.deploy import Deployment
from edvit_tf.fleet.discover import Announced

STATE_FILE = "fleet.json"
SCHEMA = 1


def default_folder() -> Path:
    """Return the folder for the user's data."""
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "edvit-tf" / "fleet"


def save(folder: Path, bundle: Bundle, deployment: Deployment) -> None:
    """Keep the bundle and the deployment, replacing what was kept before.

    Raises:
        EdvitError: `state.write`, when the folder cannot be written.
    """
    try:
        bundles = folder / "bundles"
        bundles.mkdir(parents=True, exist_ok=True)
        name = hashlib.sha256(bundle.manifest_bytes).hexdigest()[:16]
        if bundle.path.resolve().parent == bundles.resolve():
            name = bundle.path.name  # signed here, perhaps with a decision to go back that another copy lacks
        _copy(bundle.path, bundles / name)
        _write(folder / STATE_FILE, _to_json(f"bundles/{name}", deployment))
        for other in bundles.iterdir():
            if other.name != name:
                shutil.rmtree(other)
    except OSError as error:
        raise EdvitError(
            f"cannot keep the deployment in {folder} ({error.strerror or error}): choose another --state",
            code="state.write",
        ) from error


def load(folder: Path) -> tuple[Bundle, Deployment]:
    """Read what `save` kept.

    Raises:
        UsageError: `state.missing`: nothing was deployed from there; `state.broken`: it cannot be read.
        BundleError: the copy of the bundle has been changed.
    """
    try:
        document = json.loads((folder / STATE_FILE).read_bytes())
        if document["schema"] != SCHEMA:
            raise _broken(folder)
        devices = tuple(
            Announced(address=str(device["address"]), id=str(device["id"]), name=str(device["name"]))
            for device in document["devices"]
        )
        assignment = {str(submodel): str(device) for submodel, device in document["assignment"].items()}
        path = folder / str(document["bundle"])
    except FileNotFoundError:
        raise UsageError(
            f"nothing is deployed from {folder}: run `edvit-tf fleet deploy BUNDLE`, or name another --state",
            code="state.missing",
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _broken(folder) from error
    return open_bundle(path), Deployment(assignment, devices)


def _broken(folder: Path) -> UsageError:
    return UsageError(
        f"{folder / STATE_FILE} cannot be read: run `edvit-tf fleet deploy BUNDLE` again", code="state.broken"
    )


def _to_json(bundle: str, deployment: Deployment) -> bytes:
    document = {
        "schema": SCHEMA,
        "bundle": bundle,
        "assignment": dict(deployment.assignment),
        "devices": [
            {"id": device.id, "name": device.name, "address": device.address} for device in deployment.devices
        ],
    }
    return json.dumps(document, indent=2, sort_keys=True).encode() + b"\n"


def _copy(source: Path, target: Path) -> None:
    if target.exists():
        return
    temporary = target.with_name(f"{target.name}.{secrets.token_hex(4)}.part")
    try:
        shutil.copytree(source, temporary)
        for path in temporary.rglob("*"):
            _sync(path)
        temporary.rename(target)
        _sync(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        temporary.write_bytes(data)
        _sync(temporary)
        temporary.rename(path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
