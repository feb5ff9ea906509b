"""A fleet of real processes under random faults, checked after every answer.

    python tools/soak.py --minutes 30 --seed 7

Devices, half of which dial in, the aggregator (`edvit-tf serve`) and this process are all there is;
everything goes over loopback.
The faults come from the seed, so that a run can be repeated as far as processes can. Each answer is checked:
by the deadline, of the right version, honest about what is missing, and with the very numbers that the
sub-models that answered give. At the end nothing may have grown: memory, open files, threads, processes.
Prints one JSON object; the exit status is 1 when something was wrong.
"""

import argparse
import asyncio
import http.client
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image

from edvit_tf.bundle.reader import Bundle, open_bundle
from edvit_tf.bundle.writer import write_manifest
from edvit_tf.cli.demo_devices import DeviceProcess, ThrowAwayFleet, device_fleet, read_line
from edvit_tf.cli.reach import reaching
from edvit_tf.errors import EdvitError
from edvit_tf.fleet import at_address, deploy
from edvit_tf.fleet.keeper import changed_over
from edvit_tf.fleet.state import FleetState, load
from edvit_tf.runtime.fusion import Fusion
from edvit_tf.runtime.interpreter import Flatbuffer

BUNDLE = Path(__file__).parent.parent / "tests" / "vectors" / "bundle"
DEADLINE = 2.0
# What this process and the port take beside the deadline, on a machine that does other things too.
SLACK = 1.5
# Neither pictures nor faults come faster than this, in seconds.
ASK_EVERY = 0.05
FAULT_EVERY = (1.0, 6.0)
LONGEST_OUTAGE = 15.0
READY_SECONDS = 60.0
# Within which every device that dials in has done so again, after the aggregator was started again.
DIAL_SECONDS = 20.0
# Growth of the aggregator that is no leak: caches fill, SQLite's log grows to its checkpoint.
GROWN_BYTES = 40_000_000
GROWN_FILES = 20
GROWN_THREADS = 8
WARM_SECONDS = 20.0
LATE_SECONDS = 20.0


class Wrong(Exception):
    """Something that must not happen."""


@dataclass(slots=True)
class Tally:
    """What was counted."""

    outcomes: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    longest_seconds: float = 0.0
    versions: set[int] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process has: bytes of memory, open files, threads."""

    memory: int
    files: int
    threads: int


def usage(process: int) -> Usage:
    """Read it from /proc."""
    folder = Path(f"/proc/{process}")
    status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines() if ":" in line)
    memory = int(status["VmRSS"].split()[0]) * 1024
    return Usage(memory, len(list((folder / "fd").iterdir())), int(status["Threads"]))


def children(process: int) -> list[int]:
    """The processes that a process has started and that are there still, also as zombies."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            after_name = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(after_name[1]) == process:
                found.append(int(folder.name))
    return found


class Aggregator:
    """The `edvit-tf serve` process, started again whenever it was ended."""

    def __init__(self, state: Path, log: Path, listening: Sequence[str]) -> None:
        self._state = state
        self._log = log
        self._listening = listening
        self._process: subprocess.Popen[bytes] | None = None
        self.address = ("127.0.0.1", 0)
        self.first: Usage | None = None
        self._late: deque[tuple[float, Usage]] = deque()
        self.began = 0.0
        self.start()

    @property
    def pid(self) -> int:
        """Its process."""
        if self._process is None:
            raise Wrong("the aggregator has not been started")
        return self._process.pid

    def start(self) -> None:
        """Start it, on the port that it had."""
        where = f"127.0.0.1:{self.address[1]}"
        options = ["--http", where, "--grpc", "127.0.0.1:0", "--deadline", str(DEADLINE), "--json"]
        options += self._listening
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "edvit_tf.cli.main", "serve", "--state", str(self._state), *options],
                stdout=subprocess.PIPE,
                stderr=log,
            )
        if self._process.stdout is None:
            raise Wrong("the aggregator has no output")
        line = read_line(self._process.stdout, READY_SECONDS)
        if not line.endswith(b"\n"):
            raise Wrong(f"the aggregator did not start: its log is {self._log}")
        host, _, port = json.loads(line)["http"].rpartition(":")
        self.address = (host, int(port))
        self.first = None
        self._late.clear()
        self.began = time.monotonic()

    def end(self, number: signal.Signals) -> None:
        """Send it a signal, and wait until it is gone."""
        if self._process is None:
            return
        self._process.send_signal(number)
        status = self._process.wait(DEADLINE + 20)
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._process = None
        if number is signal.SIGTERM and status != 0:
            raise Wrong(f"the aggregator ended with status {status}")

    def check_growth(self) -> Usage | None:
        """Hold the least that it had of late against what it had when it was warm.

        Connections of a crowd, and those on which nobody says anything, are open for some seconds: no leak.

        Raises:
            Wrong: it has grown.
        """
        moment = time.monotonic()
        if moment - self.began < WARM_SECONDS:
            return None
        now = usage(self.pid)
        if self.first is None:
            self.first = now
        self._late.append((moment, now))
        while moment - self._late[0][0] > LATE_SECONDS:
            self._late.popleft()
        late = [of_late for _, of_late in self._late]
        grown = (
            min(of_late.memory for of_late in late) - self.first.memory,
            min(of_late.files for of_late in late) - self.first.files,
            min(of_late.threads for of_late in late) - self.first.threads,
        )
        if grown[0] > GROWN_BYTES or grown[1] > GROWN_FILES or grown[2] > GROWN_THREADS:
            raise Wrong(f"the aggregator has grown by {grown} (bytes, files, threads)")
        return now


class Soak:
    """One run."""

    def __init__(self, fleet: ThrowAwayFleet, bundle: Bundle, folder: Path, seed: int) -> None:
        self._fleet = fleet
        self._bundle = bundle
        self._folder = folder
        self._random = Random(seed)  # noqa: S311 (faults are no secret)
        self._version = bundle.manifest.version
        self._image = np.random.default_rng(seed).integers(0, 256, _shape(bundle), dtype=np.uint8)
        self._data = _png(self._image)
        self._possible = _possible(bundle, self._image)
        # Started, and their ready line, which says where they listen now, is not read yet.
        self._starting: list[DeviceProcess] = []
        self._deploy(bundle)
        self._aggregator = Aggregator(fleet.folder, folder / "aggregator.log", fleet.listening)
        # Of devices that are away: when they come back, and how.
        self._away: dict[str, tuple[float, Callable[[], None]]] = {}
        self.tally = Tally()

    def run(self, seconds: float) -> None:
        """Ask and break things for so long; then all must come back.

        Raises:
            Wrong: something was.
        """
        end = time.monotonic() + seconds
        next_fault = time.monotonic() + WARM_SECONDS / 4
        next_look = 0.0
        while (now := time.monotonic()) < end:
            self._ask()
            self._return(now)
            if now >= next_fault:
                self._break(now)
                next_fault = time.monotonic() + self._random.uniform(*FAULT_EVERY)
            if now >= next_look:
                self._aggregator.check_growth()
                next_look = now + 5.0
            time.sleep(ASK_EVERY)
        self._return(float("inf"))
        self._complete_again()
        self._aggregator.check_growth()
        self._check_processes()

    def _check_processes(self) -> None:
        """No process is there but the devices, the aggregator, and this one.

        Raises:
            Wrong: one is, or one has ended and nobody has noticed.
        """
        ours = children(os.getpid())
        if len(ours) != len(self._fleet.devices) + 1:
            raise Wrong(f"there are {len(ours)} processes of {len(self._fleet.devices) + 1}")
        # A device that proves a flatbuffer has a child for a moment.
        end = time.monotonic() + 30
        while left := [child for process in ours for child in children(process)]:
            if time.monotonic() > end:
                raise Wrong(f"processes were left behind: {left}")
            time.sleep(0.5)

    def report(self) -> dict[str, Any]:
        """What was counted, and what the processes have now."""
        return {
            "outcomes": dict(self.tally.outcomes),
            "faults": dict(self.tally.faults),
            "longest_seconds": round(self.tally.longest_seconds, 3),
            "versions": sorted(self.tally.versions),
            "aggregator": asdict(usage(self._aggregator.pid)),
        }

    def close(self) -> None:
        """End the aggregator."""
        self._aggregator.end(signal.SIGTERM)

    def _ask(self, *, may_fail: bool = True) -> bool:
        """Send the picture, check what comes back, and tell whether it was complete."""
        start = time.monotonic()
        status, body = self._post(self._data)
        took = time.monotonic() - start
        self.tally.longest_seconds = max(self.tally.longest_seconds, took)
        if took > DEADLINE + SLACK:
            raise Wrong(f"an answer took {took:.2f} s")
        if status == 200:
            answer = json.loads(body)
            self._check(answer)
            self.tally.outcomes["complete" if answer["complete"] else "partial"] += 1
            return bool(answer["complete"])
        code = json.loads(body)["error"]["code"]
        if not may_fail or (status, code) not in {(504, "deadline"), (503, "busy")}:
            raise Wrong(f"status {status}: {body!r}")
        self.tally.outcomes[code] += 1
        return False

    def _check(self, answer: dict[str, Any]) -> None:
        expected = [submodel.id for submodel in self._bundle.manifest.submodels]
        came = tuple(name for name in expected if name not in answer["missing"])
        if answer["answered"] != len(came) or answer["expected"] != len(expected):
            raise Wrong(f"it counts wrongly: {answer}")
        if answer["complete"] != (not answer["missing"]):
            raise Wrong(f"it is not honest about what is missing: {answer}")
        if answer["bundle_version"] != self._version:
            raise Wrong(f"version {answer['bundle_version']} answers where {self._version} is deployed")
        if answer["probabilities"] not in self._possible[came]:
            raise Wrong(f"these are not the numbers of {came}: {answer}")
        best = int(np.argmax(answer["probabilities"]))
        if answer["label"] != self._bundle.manifest.classes[best]:
            raise Wrong(f"the label is another one: {answer}")
        self.tally.versions.add(answer["bundle_version"])

    def _post(self, data: bytes) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(*self._aggregator.address, timeout=DEADLINE + SLACK + 5)
        try:
            connection.request("POST", "/v1/classify", data)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def _break(self, now: float) -> None:
        faults: list[tuple[str, Callable[[float], None]]] = [
            ("kill", self._kill),
            ("kill", self._kill),
            ("freeze", self._freeze),
            ("freeze", self._freeze),
            ("wipe", self._wipe),
            ("drain", self._drain),
            ("restart the aggregator", self._restart),
            ("kill the aggregator", self._kill_aggregator),
            ("garbage", self._garbage),
            ("crowd", self._crowd),
            ("silent connections", self._silent),
            ("deploy", self._deploy_newer),
        ]
        name, fault = self._random.choice(faults)
        self.tally.faults[name] += 1
        fault(now)

    def _victim(self) -> DeviceProcess | None:
        """A device that is there, as a rule one that holds something; never the half of them."""
        if 2 * (len(self._away) + 1) >= len(self._fleet.devices):
            return None
        _, deployment = load(self._fleet.folder)
        holding = {deployment.holder(submodel) for submodel in deployment.assignment}
        there = [device for device in self._fleet.devices if device.id not in self._away]
        used = [device for device in there if device.id in holding]
        return self._random.choice(used if used and self._random.random() < 0.7 else there)

    def _leave(self, device: DeviceProcess, now: float, back: Callable[[], None]) -> None:
        self._away[device.id] = (now + self._random.uniform(0.5, LONGEST_OUTAGE), back)

    def _return(self, now: float) -> None:
        for device, (when, back) in list(self._away.items()):
            if now >= when:
                del self._away[device]
                back()

    def _start(self, device: DeviceProcess) -> None:
        device.begin()
        if device not in self._starting:
            self._starting.append(device)

    def _kill(self, now: float) -> None:
        if device := self._victim():
            device.kill()
            self._leave(device, now, lambda: self._start(device))

    def _freeze(self, now: float) -> None:
        if device := self._victim():
            device.send(signal.SIGSTOP)
            self._leave(device, now, lambda: device.send(signal.SIGCONT))

    def _wipe(self, now: float) -> None:
        if device := self._victim():
            device.kill()
            shutil.rmtree(device.store / "blobs")
            self._leave(device, now, lambda: self._start(device))

    def _drain(self, now: float) -> None:
        if device := self._victim():
            with FleetState(self._fleet.folder) as state:
                state.drain(device.id, drained=True)

            def undo() -> None:
                with FleetState(self._fleet.folder) as state:
                    state.drain(device.id, drained=False)

            self._leave(device, now, undo)

    def _restart(self, now: float) -> None:
        del now
        self._aggregator.end(signal.SIGTERM)
        self._aggregator.start()

    def _kill_aggregator(self, now: float) -> None:
        del now
        self._aggregator.end(signal.SIGKILL)
        self._aggregator.start()

    def _garbage(self, now: float) -> None:
        del now
        data = bytearray(self._data)
        for _ in range(self._random.randint(1, 20)):
            data[self._random.randrange(len(data))] = self._random.randrange(256)
        for body in (bytes(data[: self._random.randrange(1, len(data))]), self._random.randbytes(5000)):
            status, said = self._post(body)
            if status not in {200, 400, 503, 504}:
                raise Wrong(f"garbage has status {status}: {said!r}")

    def _crowd(self, now: float) -> None:
        """Forty at once: each is answered, or told busy."""
        del now
        seen: list[int] = []

        def one() -> None:
            seen.append(self._post(self._data)[0])

        threads = [threading.Thread(target=one) for _ in range(40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if len(seen) != len(threads) or not set(seen) <= {200, 503, 504}:
            raise Wrong(f"of {len(threads)} at once {len(seen)} were answered: {Counter(seen)}")

    def _silent(self, now: float) -> None:
        del now
        for _ in range(30):
            with suppress(OSError):
                connection = socket.create_connection(self._aggregator.address, timeout=1)
                connection.close() if self._random.random() < 0.5 else _forget(connection)

    def _deploy_newer(self, now: float) -> None:
        """Another version, if all devices are there: otherwise a deploy waits, which is not asked here."""
        del now
        if self._away:
            return
        folder = self._folder / f"version-{self._version + 1}"
        shutil.copytree(self._bundle.path, folder)
        write_manifest(folder, replace(self._bundle.manifest, version=self._version + 1))
        try:
            self._deploy(open_bundle(folder))
        finally:
            shutil.rmtree(folder)
        self._version += 1

    def _deploy(self, bundle: Bundle) -> None:
        while self._starting:
            device = self._starting.pop()
            if device.running:
                device.wait_ready()
        signed = self._fleet.sign(bundle)
        called = [device for device in self._fleet.devices if device.port]

        async def remember(deployment: Any) -> None:
            with FleetState(self._fleet.folder) as state:
                state.deploy(signed, deployment)
            if not await changed_over(self._fleet.folder):
                raise Wrong("the aggregator did not change over")

        async def work() -> None:
            async with reaching(self._fleet.folder, self._fleet.keys, self._fleet.dial) as reach:
                end = time.monotonic() + DIAL_SECONDS
                while len(dialled := reach.dialled()) < len(self._fleet.devices) - len(called):
                    if time.monotonic() > end:
                        raise Wrong(f"of the devices only {dialled} have dialled in")
                    await asyncio.sleep(0.25)
                found = [at_address(device.address) for device in called] + dialled
                await deploy(signed, found, connect=reach.connect, on_switch=remember)

        asyncio.run(work())

    def _complete_again(self) -> None:
        """With everything back, answers are complete within a while, and stay so."""
        start = time.monotonic()
        while not self._ask():
            if time.monotonic() - start > 60:
                raise Wrong("with every device back the answers are not complete")
            time.sleep(ASK_EVERY)
        for _ in range(50):
            if not self._ask(may_fail=False):
                raise Wrong("an answer is not complete although every device is there")


def _free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return f"127.0.0.1:{taken.getsockname()[1]}"


def _forget(connection: socket.socket) -> None:
    threading.Timer(5.0, connection.close).start()


def _shape(bundle: Bundle) -> tuple[int, int, int]:
    size = bundle.manifest.input
    return size.height, size.width, size.channels


def _png(image: np.ndarray) -> bytes:
    data = BytesIO()
    Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(data, "PNG")
    return data.getvalue()


def _possible(bundle: Bundle, image: np.ndarray) -> dict[tuple[str, ...], list[list[float]]]:
    """By the sub-models that answered, the probabilities for every choice of variants."""
    fusion = Fusion(bundle)
    features = {
        submodel.id: [
            Flatbuffer(bundle.file(variant.file)).run(image).feature for variant in submodel.variants
        ]
        for submodel in bundle.manifest.submodels
    }
    return {
        came: [
            fusion.probabilities(dict(zip(came, choice, strict=True))).tolist()
            for choice in itertools.product(*(features[name] for name in came))
        ]
        for number in range(1, len(features) + 1)
        for came in itertools.combinations(features, number)
    }


def main() -> int:
    """Parse the arguments, run, and print what came of it."""
    parser = argparse.ArgumentParser(description="A fleet of real processes under random faults.")
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--devices", type=int, default=10)
    parser.add_argument(
        "--bundle", type=Path, default=BUNDLE, help="any bundle (default: the tests' small one)"
    )
    parser.add_argument("--folder", type=Path, help="where to keep logs and stores (default: thrown away)")
    given = parser.parse_args()
    names = [f"soak-{number}" for number in range(given.devices)]
    wrong = ""
    with tempfile.TemporaryDirectory(prefix="edvit-soak-") as thrown_away:
        folder = given.folder or Path(thrown_away)
        # Half of them are called, and half dial in.
        with device_fleet(names, folder, dial=_free_address(), dialling=names[::2]) as fleet:
            soak = Soak(fleet, open_bundle(given.bundle), folder, given.seed)
            try:
                soak.run(60 * given.minutes)
            except (Wrong, EdvitError, OSError, http.client.HTTPException) as error:
                wrong = f"{type(error).__name__}: {error}"
            said = soak.report()
            try:
                soak.close()
            except (Wrong, subprocess.TimeoutExpired) as error:
                wrong = wrong or f"{type(error).__name__}: {error}"
    print(json.dumps({"seed": given.seed, "minutes": given.minutes, "wrong": wrong, **said}))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
