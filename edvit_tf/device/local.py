"""A device without a store or a port: every sub-model of a bundle, loaded in this process."""

import hashlib

from edvit_tf.bundle.reader import Bundle
from edvit_tf.device.engine import Engine, Runtime, installed_runtime
from edvit_tf.device.served import Held, Served, Shelf
from edvit_tf.device.service import DeviceService, Facts
from edvit_tf.errors import DeviceError
from edvit_tf.rpc.runtimes import accepts


def local_device(bundle: Bundle, *, runtime: Runtime | None = None) -> DeviceService:
    """Load the first variant of each sub-model that the interpreter here runs rightly.

    Raises:
        DeviceError: a sub-model has none.
        ModelError: a flatbuffer cannot be loaded.
    """
    here = runtime or installed_runtime()
    manifest = bundle.manifest
    vectors = {entry.file: entry.sha256 for entry in manifest.files}
    held = {}
    for submodel in manifest.submodels:
        variant = next(
            (variant for variant in submodel.variants if accepts(variant.runtimes, here.name)), None
        )
        if variant is None:
            raise DeviceError(
                f"{submodel.id} comes in {', '.join(submodel.formats)}, and {here.name} runs none of them",
                code="device.runtime",
            )
        held[submodel.id] = Held(
            variant=variant.file,
            sha256=variant.sha256,
            vector=vectors[variant.test_vector],
            format=variant.format,
            memory_bytes=variant.memory_bytes,
            engine=Engine(here.load(bundle.file(variant.file))),
        )
    shape = (manifest.input.height, manifest.input.width, manifest.input.channels)
    served = Served(
        manifest.name, manifest.version, hashlib.sha256(bundle.manifest_bytes).hexdigest(), shape, held
    )
    facts = Facts(
        id=hashlib.sha256(b"in-process").hexdigest(),
        name="in-process",
        runtime=here.name,
        memory_bytes=sum(part.memory_bytes for part in held.values()),
    )
    return DeviceService(facts, Shelf(settled=served))
