"""What a device holds and serves at one moment: replaced whole, never changed."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from edvit_tf.device.engine import Engine
from edvit_tf.errors import DeviceError
from edvit_tf.rpc.edvit_pb2 import Generation, Holding, InferRequest


@dataclass(frozen=True, slots=True)
class Held:
    """One sub-model: which variant (a file name in the manifest), and its engine, or why it has none.

    `sha256` and `vector` are the SHA-256 of its flatbuffer and of its test vector; `microseconds` is the
    median of one picture, measured here.
    """

    variant: str
    sha256: str
    vector: str
    format: str
    memory_bytes: int
    engine: Engine | None = None
    reason: str = ""
    microseconds: int = 0


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

    @property
    def serving(self) -> bool:
        """Whether any of it serves."""
        return any(held.engine is not None for held in self.held.values())

    def holdings(self) -> list[Holding]:
        """What to say of it in Hello."""
        return [
            Holding(
                submodel=submodel,
                sha256=held.sha256,
                format=held.format,
                serving=held.engine is not None,
                reason=held.reason,
                memory_bytes=held.memory_bytes,
                microseconds=held.microseconds,
            )
            for submodel, held in sorted(self.held.items())
        ]

    def resting(self, reason: str) -> "Served":
        """The same without engines."""
        held = {name: replace(one, engine=None, reason=reason) for name, one in self.held.items()}
        return replace(self, held=held)


NOTHING = Served()


@dataclass(frozen=True, slots=True)
class Shelf:
    """All that a device holds: the bundle it has settled for, and one that is on trial beside it.

    A bundle that is not there is `NOTHING`. Requests name their bundle, so both may serve at once and no
    answer is of both.
    """

    settled: Served = NOTHING
    trial: Served = NOTHING

    @property
    def first(self) -> Served:
        """The settled bundle, or the one on trial where the settled one serves nothing."""
        return self.trial if self.trial.serving and not self.settled.serving else self.settled

    @property
    def generations(self) -> tuple[Served, ...]:
        """The bundles that are there."""
        return tuple(served for served in (self.settled, self.trial) if served.manifest)

    def asked(self, request: InferRequest) -> Served:
        """Return the bundle that a request names.

        Raises:
            DeviceError: it is not here (`device.version`).
        """
        for served in self.generations:
            same = (served.bundle, served.version) == (request.bundle, request.bundle_version)
            if same and request.manifest in (b"", bytes.fromhex(served.manifest)):
                return served
        raise DeviceError(
            f"this device serves {self.first.title}, "
            f"not {request.bundle[:80]} version {request.bundle_version}",
            code="device.version",
        )

    def engines(self) -> dict[str, Held]:
        """What is loaded, by the SHA-256 of its flatbuffer: the same bytes are loaded once."""
        return {
            held.sha256: held
            for served in self.generations
            for held in served.held.values()
            if held.engine is not None
        }

    def say(self) -> list[Generation]:
        """What to say of all of it in Hello."""
        return [
            Generation(
                bundle=served.bundle,
                version=served.version,
                manifest=bytes.fromhex(served.manifest),
                settled=served is self.settled,
                holdings=served.holdings(),
            )
            for served in self.generations
        ]

    def close(self, *, but: "Shelf | None" = None, wait: bool = False) -> None:
        """End the threads of the engines that `but` has not taken over; `wait` is as for `Engine.close`."""
        kept = {id(held.engine) for held in but.engines().values()} if but else set()
        for held in self.engines().values():
            if held.engine is not None and id(held.engine) not in kept:
                held.engine.close(wait=wait)
