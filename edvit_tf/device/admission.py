"""Whether a device may install from a manifest: the one place that decides it."""

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from edvit_tf.bundle.manifest import Manifest
from edvit_tf.bundle.signature import admit
from edvit_tf.device.served import Served
from edvit_tf.errors import DeviceError
from edvit_tf.rpc.edvit_pb2 import InstallHeader


def check_admission(
    signer: Ed25519PublicKey | None, header: InstallHeader, manifest: Manifest, served: Served
) -> None:
    """Refuse a manifest that is unsigned, another fleet's, expired, or older than what is served.

    `signer` is the fleet's key, None on a device that is of no fleet: it looks at the version alone.

    Raises:
        TrustError: as `edvit_tf.bundle.signature.admit`.
        DeviceError: `device.older`.
    """
    newest = served.version if manifest.name == served.bundle else 0
    if signer is not None:
        admit(signer, manifest, header.manifest, header.signature, newest=newest, rollback=header.rollback)
    elif manifest.version < newest:
        raise DeviceError(
            f"{manifest.name} version {manifest.version} is older than version {newest}, "
            "which this device holds",
            code="device.older",
        )
