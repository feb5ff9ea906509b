"""What a device holds and serves at one moment: replaced whole, never changed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Optional

from edvit_tf.device.engine import Engine
from edvit_tf.errors import DeviceError
from edvit_tf.rpc.edvit_pb2 import Holding


@dataclass(frozen=True, slots=True)
class Held:
    """One sub-model: which variant (a file name in the manifest), and its engine, or why it has none.

    `sha256` and `vector` are the SHA-256 of its flatbuffer and of its test vector.
    """

    variant: str
    sha256: str
    vector: str
    format: str
    memory_bytes: int
    engine: Engine | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Served:
    """The sub-models of one bundle; `manifest` is its manifest's SHA-256, `shape` that of its pictures."""

    bundle: str = ""
    version: int = 0
    manifest: str = ""
    shape: tuple[int, int, int] = (0, 0, 0)
    held: Mapping[str, Held] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The bundle in words."""
        return f"{self.bundle} version {self.version}" if self.bundle else "no bundle"

    def engine(self, submodel: str) -> Engine:
        """Return the engine of a sub-model.

        Raises:
            DeviceError: when it is not here, or did not pass its test vector.
        """
        held = self.held.get(submodel)
        if held is None:
            raise DeviceError(f"sub-model {submodel[:80]!r} is not on this device", code="device.submodel")
        if held.engine is None:
            raise DeviceError(f"{submodel} does not serve: {held.reason}", code="device.submodel")
        return held.engine

    def memory_without(self, submodel: str) -> int:
        """Bytes that all sub-models but this one take."""
        return sum(held.memory_bytes for name, held in self.held.items() if name != submodel)

    def holdings(self) -> list[Holding]:
        """What to say of it in Hello."""
        return [
            Holding(
                submodel=submodel,
                sha256=held.sha256,
                format=held.format,
                serving=held.engine is not None,
                reason=held.reason,
            )
            for submodel, held in sorted(self.held.items())
        ]

    def close(self, *, but: Optional["Served"] = None) -> None:
        """End the threads of the engines that `but` has not taken over."""
        kept = {id(held.engine) for held in but.held.values()} if but else set()
        for held in self.held.values():
            if held.engine is not None and id(held.engine) not in kept:
                held.engine.close()
