"""Memory of `edvit-tf serve` and of its devices over a hundred thousand pictures that come by HTTP.

    python -m benchmarks.memory BUNDLE [--answers 100000] [--wire auto] [--wire-quality N]

Real processes on loopback, one device for each sub-model. Pictures are pieces of photographs from
scikit-image; one request in a hundred is no picture. Prints one JSON object. Of each process it has what it
holds after a fifth of the answers and at the end: bytes of memory of its own (also what was swapped out, not
what is mapped from files, which a kernel takes away as it likes), open files, threads. What an answer leaves
behind is the slope of a straight line through the memory in between, which is there to be looked at.
"""

import argparse
import asyncio
import http.client
import itertools
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.photographs import photographs
from edvit_tf.bundle.reader import Bundle, open_bundle
from edvit_tf.cli.demo_devices import device_fleet, read_line
from edvit_tf.errors import DeviceError, EdvitError
from edvit_tf.fleet import at_address, deploy
from edvit_tf.fleet.state import save
from edvit_tf.vit.config import ImageSize

CLIENTS = 4
PIECES = 64
LOOKS = 50
# Caches are full and everything is imported after this part of the answers.
WARM_UP = 0.2


def bodies(bundle: Bundle) -> list[bytes]:
    """Pictures of about the model's size, as files; the last one is none."""
    spec = bundle.manifest.input
    pieces = photographs(ImageSize(4 * spec.height, 4 * spec.width, spec.channels)).values()
    made = []
    for number, piece in zip(range(PIECES), itertools.cycle(pieces), strict=False):
        top, left = spec.height * (number % 3), spec.width * (number // 3 % 3)
        cut = piece[top : top + spec.height, left : left + spec.width]
        file = BytesIO()
        Image.fromarray(cut[:, :, 0] if spec.channels == 1 else cut).save(file, "PNG")
        made.append(file.getvalue())
    return [*made, b"no picture"]


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process has: bytes of memory of its own, open files, threads."""

    memory: int
    files: int
    threads: int


def usage(process: int) -> Usage:
    """Read it from /proc."""
    folder = Path(f"/proc/{process}")
    status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines() if ":" in line)
    memory = sum(int(status[name].split()[0]) * 1024 for name in ("RssAnon", "VmSwap"))
    return Usage(memory, len(list((folder / "fd").iterdir())), int(status["Threads"]))


class Asking:
    """Several clients, each with a connection that is kept; counts the statuses of the answers."""

    def __init__(self, address: str, wanted: list[bytes]) -> None:
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        self._bodies = wanted
        self.statuses: Counter[int] = Counter()
        self.codecs: Counter[str] = Counter()
        self._turns = itertools.count()
        self._lock = threading.Lock()

    def ask(self, number: int) -> None:
        """Ask so many times."""
        clients = [threading.Thread(target=self._some, args=(number // CLIENTS,)) for _ in range(CLIENTS)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()

    def _some(self, number: int) -> None:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=60)
        statuses: Counter[int] = Counter()
        codecs: Counter[str] = Counter()
        for _ in range(number):
            turn = next(self._turns)
            body = self._bodies[-1] if turn % 100 == 99 else self._bodies[turn % PIECES]
            connection.request("POST", "/v1/classify", body)
            response = connection.getresponse()
            said = json.loads(response.read())
            statuses[response.status] += 1
            codecs.update(part["codec"] for part in said.get("devices", ()))
        connection.close()
        with self._lock:
            self.statuses += statuses
            self.codecs += codecs


def measure(bundle: Bundle, folder: Path, answers: int, options: list[str]) -> dict[str, object]:
    """Start a fleet, ask, and look at every process in between."""
    names = [f"device-{number}" for number in range(len(bundle.manifest.submodels))]
    with device_fleet(names, folder) as fleet:
        signed = fleet.sign(bundle)
        found = [at_address(device.address) for device in fleet.devices]
        save(fleet.folder, signed, asyncio.run(deploy(signed, found, connect=fleet.connect)))
        ports = ["--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--json", "--state", str(fleet.folder)]
        command = [sys.executable, "-m", "edvit_tf.cli.main", "serve", *ports, *options]
        with (
            (folder / "serve.log").open("wb") as log,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log) as serving,
        ):
            try:
                if serving.stdout is None:
                    raise DeviceError("serve was started without an output to read")
                ready = json.loads(read_line(serving.stdout, 60.0) or b"{}")
                if "http" not in ready:
                    raise DeviceError(f"serve did not start: {(folder / 'serve.log').read_text()[-400:]}")
                processes = {"serve": serving.pid} | {device.name: device.pid for device in fleet.devices}
                return _watched(Asking(ready["http"], bodies(bundle)), processes, answers)
            finally:
                serving.terminate()
                serving.wait(30)


def _watched(asking: Asking, processes: dict[str, int], answers: int) -> dict[str, object]:
    """Ask in as many parts as there are looks."""
    seen: dict[str, list[Usage]] = {name: [] for name in processes}
    start = time.monotonic()
    for _ in range(LOOKS):
        asking.ask(answers // LOOKS)
        for name, process in processes.items():
            seen[name].append(usage(process))
    seconds = time.monotonic() - start
    warm = int(LOOKS * WARM_UP)
    return {
        "answers": asking.statuses[200],
        "statuses": dict(asking.statuses),
        "codecs": dict(asking.codecs),
        "answers_a_second": round(answers / seconds),
        "processes": {name: _grown(looks[warm:], answers // LOOKS) for name, looks in seen.items()},
    }


def _grown(looks: list[Usage], answers: int) -> dict[str, object]:
    memory = np.array([look.memory for look in looks], float)
    slope = np.polyfit(np.arange(len(looks)) * answers, memory, 1)[0]
    return {
        "warm": asdict(looks[0]),
        "end": asdict(looks[-1]),
        "grown_bytes": looks[-1].memory - looks[0].memory,
        "bytes_an_answer": round(float(slope), 2),
        "megabytes": [round(look.memory / 1e6, 2) for look in looks],
    }


def main() -> int:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--answers", type=int, default=100_000)
    parser.add_argument("--wire", default="auto")
    parser.add_argument("--wire-quality", type=int)
    given = parser.parse_args()
    options = ["--wire", given.wire]
    if given.wire_quality is not None:
        options += ["--wire-quality", str(given.wire_quality)]
    try:
        with tempfile.TemporaryDirectory(prefix="edvit-memory-") as name:
            print(json.dumps(measure(open_bundle(given.bundle), Path(name), given.answers, options)))
    except EdvitError as error:
        print(f"memory: {error.message}", file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
