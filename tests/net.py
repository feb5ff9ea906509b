"""A bad network: two namespaces, and between them a relay that delays, loses and refuses packets.

The kernel need not have `netem`: the relay moves IP packets between two TUN devices, and every choice comes
from a seed. `python -m tests.net SETTINGS` is the relay itself; it takes changes as JSON lines.
"""

import ctypes
import fcntl
import heapq
import json
import os
import select
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from random import Random

import pytest

NEAR, FAR = "10.77.1.1", "10.77.2.1"
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x1, 0x1000


@dataclass(frozen=True, slots=True)
class Weather:
    """What happens to each packet: milliseconds of delay ± jitter in order, and the fraction that is lost.

    `cut_there` and `cut_back` lose everything towards the far side, or from it. With `closed_there` nobody
    can open a TCP connection to the far side, as when it is behind a router.
    """

    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    loss: float = 0.0
    cut_there: bool = False
    cut_back: bool = False
    closed_there: bool = False


class Network:
    """Two namespaces and the relay between them; run things there with `near` and `far`."""

    def __init__(self, name: str, relay: "subprocess.Popen[str]") -> None:
        self._name = name
        self._relay = relay

    def near(self, *command: str) -> list[str]:
        """A command that runs where the aggregator is."""
        return ["ip", "netns", "exec", f"{self._name}-near", *command]

    def far(self, *command: str) -> list[str]:
        """A command that runs where the devices are."""
        return ["ip", "netns", "exec", f"{self._name}-far", *command]

    def change(self, weather: Weather) -> None:
        """Let the weather change at once."""
        assert self._relay.stdin
        assert self._relay.stdout
        self._relay.stdin.write(json.dumps(asdict(weather)) + "\n")
        self._relay.stdin.flush()
        assert self._relay.stdout.readline() == "changed\n"


def privileged() -> bool:
    """Whether namespaces can be made here."""
    name = f"edvit-{os.getpid()}-try"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False)
    if made.returncode == 0:
        subprocess.run(["ip", "netns", "del", name], check=True)
    return made.returncode == 0 and os.access("/dev/net/tun", os.R_OK | os.W_OK)


def require_privilege() -> None:
    """Skip the test where no namespaces can be made, and fail it under CI=true."""
    if not privileged():
        if os.environ.get("CI") == "true":
            pytest.fail("network namespaces need root and /dev/net/tun: give CI both")
        pytest.skip("needs the privilege to make network namespaces")


@contextmanager
def network(weather: Weather, *, seed: int, kbit: int | None = None) -> Iterator[Network]:
    """Make it and take it away; `kbit` limits the rate towards the far side by `tc tbf`.

    Without the privilege the test is skipped, and under CI=true it fails.
    """
    require_privilege()
    name = f"edvit-{os.getpid()}"
    sides = ((f"{name}-near", NEAR, FAR), (f"{name}-far", FAR, NEAR))
    relay: subprocess.Popen[str] | None = None
    try:
        for side, _, _ in sides:
            _run("ip", "netns", "add", side)
        command = [sys.executable, "-m", "tests.net", name, str(seed), json.dumps(asdict(weather))]
        relay = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert relay.stdout
        assert relay.stdout.readline() == "ready\n"
        for side, address, other in sides:
            _run("ip", "-n", side, "link", "set", "lo", "up")
            _run("ip", "-n", side, "address", "add", address, "peer", other, "dev", "tun0")
            _run("ip", "-n", side, "link", "set", "tun0", "up", "mtu", "1400")
        if kbit is not None:
            shape = ["rate", f"{kbit}kbit", "burst", "16kb", "latency", "400ms"]
            _run("tc", "-n", sides[0][0], "qdisc", "add", "dev", "tun0", "root", "tbf", *shape)
        yield Network(name, relay)
    finally:
        if relay is not None:
            relay.kill()
            relay.wait()
            for pipe in (relay.stdin, relay.stdout):
                assert pipe
                pipe.close()
        for side, _, _ in sides:
            subprocess.run(["ip", "netns", "del", side], capture_output=True, check=False)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


def _tun(namespace: str) -> int:
    """Open `tun0` in a namespace; the file stays there when the process goes on."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"/run/netns/{namespace}", "rb") as file:  # noqa: PTH123
        if libc.setns(file.fileno(), 0):
            raise OSError(ctypes.get_errno(), f"cannot enter {namespace}")
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH", b"tun0", _IFF_TUN | _IFF_NO_PI))
    return descriptor


def _opens(packet: bytes) -> bool:
    """Whether an IPv4 packet asks for a TCP connection: SYN without ACK."""
    begin = 4 * (packet[0] & 0x0F)
    return packet[0] >> 4 == 4 and packet[9] == 6 and packet[begin + 13] & 0x12 == 0x02


def relay(name: str, seed: int, weather: Weather) -> None:
    """Move packets until standard input ends."""
    near, far = _tun(f"{name}-near"), _tun(f"{name}-far")
    random = Random(seed)
    waiting: list[tuple[float, int, int, bytes]] = []
    last = {near: 0.0, far: 0.0}
    count = 0
    print("ready", flush=True)  # noqa: T201
    while True:
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            _, _, target, packet = heapq.heappop(waiting)
            try:
                os.write(target, packet)
            except OSError:
                continue  # the other side is not up yet
        pause = max(0.0, waiting[0][0] - now) if waiting else None
        ready, _, _ = select.select([near, far, sys.stdin.fileno()], [], [], pause)
        if sys.stdin.fileno() in ready:
            line = sys.stdin.readline()
            if not line:
                return
            weather = Weather(**json.loads(line))
            print("changed", flush=True)  # noqa: T201
        for source in {near, far}.intersection(ready):
            packet = os.read(source, 65536)
            cut = weather.cut_there if source == near else weather.cut_back
            cut = cut or (weather.closed_there and source == near and _opens(packet))
            if cut or random.random() < weather.loss:
                continue
            target = far if source == near else near
            delay = weather.delay_ms + random.uniform(-weather.jitter_ms, weather.jitter_ms)
            last[target] = max(last[target], time.monotonic() + delay / 1000)
            count += 1
            heapq.heappush(waiting, (last[target], count, target, packet))


def main(arguments: Sequence[str]) -> None:
    """Run the relay."""
    relay(arguments[0], int(arguments[1]), Weather(**json.loads(arguments[2])))


if __name__ == "__main__":
    main(sys.argv[1:])
