"""One slow link between two network namespaces: a pair of interfaces, and `tc tbf` on both ends.

It needs root and Debian's `iproute2`.
"""

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from edvit_tf.errors import EdvitError

NEAR, FAR = "10.78.0.1", "10.78.0.2"
# So long a queue that nothing is dropped: what waits is late, and nothing is sent twice.
_QUEUE_BYTES = 16_000_000
_BURST_BYTES = 32_000


@dataclass(frozen=True, slots=True)
class SharedLink:
    """Two namespaces; whatever runs in one reaches the other at `NEAR` or `FAR`, all over the same link."""

    name: str

    def near(self, *command: str) -> list[str]:
        """A command that runs where the aggregator is."""
        return ["ip", "netns", "exec", f"{self.name}-near", *command]

    def far(self, *command: str) -> list[str]:
        """A command that runs where the devices are."""
        return ["ip", "netns", "exec", f"{self.name}-far", *command]


@contextmanager
def shared_link(mbit: float) -> Iterator[SharedLink]:
    """Make it, so many Mbit/s fast each way, and take it away.

    Raises:
        EdvitError: namespaces cannot be made here.
    """
    name = f"edvit-{os.getpid()}"
    sides = ((f"{name}-near", NEAR), (f"{name}-far", FAR))
    try:
        for side, _ in sides:
            _run(["ip", "netns", "add", side])
        ends = [["name", "link0", "netns", side] for side, _ in sides]
        _run(["ip", "link", "add", *ends[0], "type", "veth", "peer", *ends[1]])
        for side, address in sides:
            _run(["ip", "-n", side, "link", "set", "lo", "up"])
            _run(["ip", "-n", side, "address", "add", f"{address}/24", "dev", "link0"])
            _run(["ip", "-n", side, "link", "set", "link0", "up"])
            shape = ["rate", f"{mbit}mbit", "burst", str(_BURST_BYTES), "limit", str(_QUEUE_BYTES)]
            _run(["tc", "-n", side, "qdisc", "add", "dev", "link0", "root", "tbf", *shape])
        yield SharedLink(name)
    finally:
        for side, _ in sides:
            subprocess.run(["ip", "netns", "del", side], capture_output=True, check=False)


def _run(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise EdvitError(f"{command[0]} is missing: install iproute2") from None
    if done.returncode:
        raise EdvitError(
            f"network namespaces cannot be made here, run this as root ({' '.join(command[:4])}: "
            f"{done.stderr.strip()})"
        )
