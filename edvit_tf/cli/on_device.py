"""The devices of a fleet as an export asks them: which can measure, and how fast each candidate is there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from edvit_tf.cli.output import say
from edvit_tf.cli.trust import connect_in, keys_in

if TYPE_CHECKING:
    from edvit_tf.bundle.reader import Bundle
    from edvit_tf.bundle.tried import Measured
    from edvit_tf.fleet import Announced
    from edvit_tf.fleet.measuring import Measurer

# What is signed only to be measured cannot be installed for ever.
CANDIDATES_LIFE = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class FleetMeasurers:
    """Devices of the fleet in `folder`; they stay the same while an export runs (`edvit_tf.build.auto`)."""

    folder: Path
    measurers: "tuple[Measurer, ...]"

    @property
    def keys(self) -> Sequence[str]:
        """What tells these devices, with what runs on them, from others."""
        return sorted(f"{one.device.id} {one.software} {one.runtime}" for one in self.measurers)

    def measure(self, candidates: "Bundle", submodel: str) -> "Mapping[str, tuple[Measured, ...]]":
        """What each device says of a sub-model in each of its variants, by format.

        Raises:
            LinkError: a device was lost on the way.
        """
        import asyncio
        import tempfile

        from edvit_tf.fleet.measuring import measure_on
        from edvit_tf.fleet.signing import signed

        expires = f"{datetime.now(UTC) + CANDIDATES_LIFE:%Y-%m-%dT%H:%M:%SZ}"
        wanted = {one.device.id for one in self.measurers}
        # Training takes hours: a device may have another address by now.
        devices = [device for device in _known(self.folder) if device.id in wanted]
        with tempfile.TemporaryDirectory() as folder:
            bundle = signed(candidates, keys_in(self.folder), Path(folder), expires=expires)
            part = bundle.manifest.submodel(submodel)
            say(f"Measuring {', '.join(part.formats)} on {_named(devices)}.")
            return asyncio.run(measure_on(devices, bundle, part, connect=connect_in(self.folder)))


def find_measurers(folder: Path) -> FleetMeasurers:
    """The devices of the fleet in `folder` that can measure; those that cannot are said, with the reason.

    Raises:
        TrustError: no fleet was made there.
        LinkError: there is no device that can.
    """
    import asyncio

    from edvit_tf.errors import LinkError
    from edvit_tf.fleet.measuring import find_measurers as find

    connect = connect_in(folder)
    able, others = asyncio.run(find(_known(folder), connect=connect))
    if not able:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in others.items())
        raise LinkError(
            f"no device of the fleet in {folder} can measure ({reasons or 'it has none'}): start one with "
            "`edvit-tf device run` and adopt it, or leave --on-device out to measure here",
            code="link.no_device",
        )
    for name, reason in others.items():
        say(f"{name} does not measure: {reason}")
    return FleetMeasurers(folder, tuple(able))


def _known(folder: Path) -> "list[Announced]":
    """Where the devices of the fleet that are not drained were last seen, after a look."""
    import asyncio

    from edvit_tf.fleet import Announced
    from edvit_tf.fleet.standing import refresh
    from edvit_tf.fleet.state import FleetState

    with FleetState(folder) as state:
        asyncio.run(refresh(state, connect_in(folder)))
        return [
            Announced(device.address, device.id, device.name)
            for device in state.devices()
            if not device.drained
        ]


def _named(devices: "Sequence[Announced]") -> str:
    return ", ".join(device.name or device.id[:12] for device in devices)
