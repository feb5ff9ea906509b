"""A bundle as its fleet's owner signs it: a copy in the fleet's folder, with its `manifest.sig`."""

import hashlib
import secrets
import shutil
from dataclasses import replace
from pathlib import Path

from edvit_tf.bundle.codec import serialise
from edvit_tf.bundle.files import MANIFEST, ROLLBACK, SIGNATURE
from edvit_tf.bundle.reader import Bundle, open_bundle
from edvit_tf.bundle.signature import Rollback, key_id, sign_manifest, sign_rollback, verify_manifest
from edvit_tf.errors import TrustError
from edvit_tf.fleet.keys import FleetKeys


def signed(bundle: Bundle, keys: FleetKeys, folder: Path, *, expires: str | None = None) -> Bundle:
    """Return the bundle signed: itself when it is already, a signed copy below `folder`/bundles otherwise.

    Args:
        bundle: what export wrote; it is left as it is.
        keys: the fleet's.
        folder: the fleet's.
        expires: when devices stop installing it, UTC as "2030-01-01T00:00:00Z"; None keeps what it says.

    Raises:
        TrustError: `trust.signature`: another fleet's owner signed it, or it was changed after it was signed.
    """
    public = keys.bundle_key.public_key()
    if bundle.has_signature and expires is None:
        verify_manifest(public, bundle.manifest_bytes, bundle.signature)
        return bundle
    manifest = replace(bundle.manifest, key_id=key_id(public), expires=expires or bundle.manifest.expires)
    data = serialise(manifest)
    return _copy(bundle, folder, {MANIFEST: data, SIGNATURE: sign_manifest(keys.bundle_key, data)})


def rolled_back(bundle: Bundle, keys: FleetKeys, folder: Path, *, newest: int) -> Bundle:
    """Return the bundle signed, with the owner's decision that it replaces versions up to `newest`.

    Raises:
        TrustError: as `signed`.
    """
    before = signed(bundle, keys, folder)
    digest = hashlib.sha256(before.manifest_bytes).hexdigest()
    decision = sign_rollback(keys.bundle_key, Rollback(before.manifest.name, newest, digest))
    return _copy(before, folder, {ROLLBACK: decision}, suffix=f"-{newest}")


def _copy(bundle: Bundle, folder: Path, files: dict[str, bytes], *, suffix: str = "") -> Bundle:
    """A copy of the bundle under its manifest's hash, with `files` in it instead of its own."""
    data = files.get(MANIFEST, bundle.manifest_bytes)
    target = folder / "bundles" / (hashlib.sha256(data).hexdigest()[:16] + suffix)
    if target.exists():
        return open_bundle(target)
    temporary = target.with_name(f"{target.name}.{secrets.token_hex(4)}.part")
    try:
        shutil.copytree(bundle.path, temporary)
        for name, content in files.items():
            (temporary / name).write_bytes(content)
        temporary.rename(target)
    except OSError as error:
        raise TrustError(
            f"cannot keep the signed bundle in {folder} ({error.strerror or error}): name another --state",
            code="trust.write",
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return open_bundle(target)
