"""A fleet whose devices do no work: ten processes with real ports and TLS, whose engine knows the answer.

What is left of an answer is what we add to it: the protocol, the checks and the fusion. Beside each device's
port its process has a bare one, which only echoes: what gRPC itself takes.
"""

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from edvit_tf.bundle.codec import serialise
from edvit_tf.bundle.manifest import (
    Accuracies,
    Calibration,
    FileEntry,
    Fusion,
    InputSpec,
    Manifest,
    Submodel,
    Teacher,
    TensorSpec,
    Variant,
)
from edvit_tf.bundle.reader import Bundle
from edvit_tf.bundle.vector import Vector, save_vector
from edvit_tf.cli.demo_devices import read_line
from edvit_tf.errors import DeviceError
from edvit_tf.fleet import Announced, Deployment
from edvit_tf.rpc.certificates import (
    AGGREGATOR,
    Authority,
    id_of,
    issue,
    issue_for_device,
    new_authority,
    utc_now,
)
from edvit_tf.rpc.tls import Credentials

DEVICES = 10
FEATURE = 16
CLASSES = tuple(f"class-{number}" for number in range(10))
SIDE = 224
RUNTIME = "idle/1.0"
READY_SECONDS = 60.0
_FUSION = "fusion.tflite"
_VECTOR = "vectors/idle.safetensors"


def idle_vector() -> Vector:
    """What every sub-model says of every picture."""
    return Vector(
        image=np.zeros((SIDE, SIDE, 3), np.uint8),
        feature=np.linspace(-1.0, 1.0, FEATURE, dtype=np.float32),
        logits=np.linspace(0.0, 1.0, 2, dtype=np.float32),
    )


def idle_bundle(folder: Path) -> Bundle:
    """A bundle of ten sub-models that nothing has to be installed of, as far as an aggregator reads it."""
    (folder / "vectors").mkdir(parents=True)
    save_vector(folder / _VECTOR, idle_vector())
    made = files("edvit_tf.zoo").joinpath("idle-fusion.tflite").read_bytes()
    (folder / _FUSION).write_bytes(made)
    submodels = tuple(_submodel(number) for number in range(DEVICES))
    manifest = Manifest(
        name="idle",
        version=1,
        classes=CLASSES,
        input=InputSpec(height=SIDE, width=SIDE, channels=3),
        submodels=submodels,
        fusion=Fusion(
            file=_FUSION,
            order=tuple(submodel.id for submodel in submodels),
            calibration=tuple(Calibration(missing=missing, temperature=1.0) for missing in range(DEVICES)),
        ),
        teacher=Teacher(name="idle", parameters=1, macs=1, file="baselines/teacher.f32.tflite"),
        accuracies=Accuracies(teacher=1.0, fused=1.0, variants={}, missing={}),
        config={},
        seed=0,
        made_with={},
        files=(FileEntry(file=_VECTOR, sha256=_sha256(_VECTOR), bytes=1),),
    )
    return Bundle(folder, manifest, serialise(manifest))


def _submodel(number: int) -> Submodel:
    name = f"submodel-{number}"
    file = f"submodels/{name}.f32.tflite"
    variant = Variant(
        file=file,
        format="f32",
        target="any",
        runtimes={"idle": "1.0"},
        arena_bytes=0,
        partitions=1,
        operators=(),
        inputs=(TensorSpec(name="image", shape=(1, SIDE, SIDE, 3), dtype="uint8"),),
        outputs=(
            TensorSpec(name="feature", shape=(1, FEATURE), dtype="float32"),
            TensorSpec(name="logits", shape=(1, 2), dtype="float32"),
        ),
        test_vector=_VECTOR,
        sha256=_sha256(file),
        bytes=1,
    )
    return Submodel(
        id=name, classes=(CLASSES[number],), parameters=1, macs=1, energy_weight=1.0, variants=(variant,)
    )


def _sha256(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class IdleFleet:
    """Devices that run, who has what, the bare ports beside them, and what the aggregator shows."""

    deployment: Deployment
    bare: tuple[Announced, ...]
    credentials: Credentials


@contextmanager
def idle_fleet(bundle: Bundle) -> Iterator[IdleFleet]:
    """Start a process for each sub-model of an idle bundle; all are gone at the end.

    Raises:
        DeviceError: one did not start.
    """
    authority = new_authority(utc_now())
    key = ec.generate_private_key(ec.SECP256R1())
    own = issue(authority, key.public_key(), [AGGREGATOR], utc_now())
    assignment: dict[str, str] = {}
    devices: list[Announced] = []
    bare: list[Announced] = []
    with ExitStack() as exits:
        started = [
            (submodel.id, *_start(submodel.id, bundle, authority, exits))
            for submodel in bundle.manifest.submodels
        ]
        for submodel, device, process in started:
            if process.stdout is None:
                raise DeviceError("an idle device was started without an output to read")
            try:
                ports = json.loads(read_line(process.stdout, READY_SECONDS))
            except ValueError:
                raise DeviceError(f"the idle device for {submodel} did not start") from None
            assignment[submodel] = device
            devices.append(Announced(f"127.0.0.1:{ports['device']}", device, submodel))
            bare.append(Announced(f"127.0.0.1:{ports['bare']}", device, submodel))
        shown = _credentials(key, own.public_bytes(Encoding.PEM), authority)
        yield IdleFleet(Deployment(assignment, tuple(devices)), tuple(bare), shown)


def _start(
    submodel: str, bundle: Bundle, authority: Authority, exits: ExitStack
) -> tuple[str, subprocess.Popen[bytes]]:
    key = ec.generate_private_key(ec.SECP256R1())
    device = id_of(key.public_key())
    certificate = issue_for_device(authority, key.public_key(), utc_now())
    shown = _credentials(key, certificate.public_bytes(Encoding.PEM), authority)
    process = exits.enter_context(
        subprocess.Popen(
            [sys.executable, "-m", "edvit_tf.cli.idle_device"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
    )
    exits.callback(process.kill)
    told = {
        "id": device,
        "submodel": submodel,
        "bundle": bundle.manifest.name,
        "version": bundle.manifest.version,
        "manifest": hashlib.sha256(bundle.manifest_bytes).hexdigest(),
        "sha256": bundle.manifest.submodel(submodel).variants[0].sha256,
        "key": shown.key.decode(),
        "certificate": shown.certificate.decode(),
        "authority": shown.authority.decode(),
    }
    if process.stdin is not None:
        process.stdin.write(json.dumps(told).encode() + b"\n")
        process.stdin.flush()
    return device, process


def _credentials(key: ec.EllipticCurvePrivateKey, certificate: bytes, authority: Authority) -> Credentials:
    return Credentials(
        key=key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        certificate=certificate,
        authority=authority.certificate.public_bytes(Encoding.PEM),
    )
