"""`edvit-tf serve` as a process, always gone at the end."""

import http.client
import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.fleet.processes import command


class Serving:
    """An `edvit-tf serve` process; `ready` is what it said."""

    def __init__(self, state: Path, log: Path, *options: str) -> None:
        ports = ["--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"]
        self.log = log
        with log.open("ab") as errors:
            self.process = subprocess.Popen(
                command("serve", "--json", "--state", state, *ports, *options),
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        assert self.process.stdout is not None
        self.ready = json.loads(self.process.stdout.readline() or "{}")

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        host, _, port = self.ready["http"].rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=20)
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def classify(self, data: bytes) -> Any:
        status, body = self.ask("POST", "/v1/classify", data)
        assert status == 200, body
        return json.loads(body)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)


@contextmanager
def serving(state: Path, log: Path, *options: str) -> Iterator[Serving]:
    made = Serving(state, log, *options)
    try:
        yield made
    finally:
        made.process.kill()
        made.process.wait()
        assert made.process.stdout is not None
        made.process.stdout.close()


def edvit(*arguments: str | Path) -> tuple[int, list[Any]]:
    done = subprocess.run(
        command(*arguments, "--json"), capture_output=True, text=True, timeout=120, check=False
    )
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def until(condition: Callable[[], bool], seconds: float) -> float:
    """Wait until something is so; return the seconds that it took, fail after so many."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < seconds, "it has not come to that in time"
        time.sleep(0.05)
    return time.monotonic() - start
