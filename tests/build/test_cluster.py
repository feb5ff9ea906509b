"""The same jobs as Ray tasks on this machine: results, progress, errors, and workers that are killed."""

import contextlib
import os
import signal
import time
from pathlib import Path

import pytest

from edvit_tf.build.cluster import RETRIES, run
from edvit_tf.build.engine import Job, Report
from edvit_tf.build.progress import Silent
from edvit_tf.errors import DataError, EdvitError, UsageError
from edvit_tf.vit.checkpoint import Checkpoint, save
from tests.build.test_killed import content, start

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
HERE = "tests.build.test_cluster"
ENGINE = "tests.build.test_engine"


def die_once(folder: str, report: Report) -> str:
    """Count the calls in a folder; the first one kills its worker."""
    calls = len(list(Path(folder).iterdir()))
    (Path(folder) / str(calls)).touch()
    report(0.5, "half")
    if not calls:
        os.kill(os.getpid(), signal.SIGKILL)
    return f"{calls + 1} calls"


def die(folder: str, report: Report) -> None:  # noqa: ARG001
    (Path(folder) / str(os.getpid())).touch()
    os.kill(os.getpid(), signal.SIGKILL)


class Told:
    def __init__(self) -> None:
        self.messages: list[tuple[float, str]] = []

    def update(self, stage: str, done: float, message: str) -> None:  # noqa: ARG002
        self.messages.append((done, message))


def test_a_killed_worker_is_replaced_and_the_others_go_on(tmp_path: Path) -> None:
    told = Told()
    jobs = [Job(f"job-{n}", f"{ENGINE}:square", n) for n in range(3)]
    jobs += [Job("dies", f"{HERE}:die_once", str(tmp_path)), Job("threads", f"{ENGINE}:threads", None)]
    assert run(jobs, workers=2, stage="s", progress=told) == [0, 1, 4, "2 calls", "1"]
    assert told.messages[-1][0] == 1.0
    assert {message for _, message in told.messages} >= {"job-0: done", "dies: done"}


def test_a_worker_that_always_dies_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(EdvitError, match=r"workers of bad ended without an answer, 4 times \(WorkerCrashed"):
        run([Job("bad", f"{HERE}:die", str(tmp_path))], workers=1, stage="s", progress=Silent())
    assert len(list(tmp_path.iterdir())) == RETRIES + 1


def test_errors_come_back_as_themselves(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no pictures") as caught:
        run([Job("bad", f"{ENGINE}:refuse", None)], workers=1, stage="s", progress=Silent())
    assert caught.value.code == "data.none"
    with pytest.raises(RuntimeError, match=r"(?s)bad failed in its worker.*IndexError"):
        run([Job("bad", f"{ENGINE}:crash", [])], workers=1, stage="s", progress=Silent())
    jobs = [Job("far", f"{ENGINE}:square", 1)]
    with pytest.raises(UsageError, match="does not see"):
        run(jobs, workers=1, stage="s", progress=Silent(), shared=tmp_path / "elsewhere")


def test_an_export_over_ray_loses_a_worker_and_ends_with_the_same_bundle(
    teacher: Checkpoint, data_folder: Path, tmp_path: Path
) -> None:
    model = tmp_path / "toy.safetensors"
    save(model, teacher)
    alone = start(model, data_folder, tmp_path / "local" / "bundle")
    _, said = alone.communicate()
    assert alone.returncode == 0, said.decode()
    out = tmp_path / "ray" / "bundle"
    cache = out.parent / "edvit-cache"
    process = start(model, data_folder, out, "--engine", "ray")
    killed = 0
    while process.poll() is None and not killed:
        if list(cache.glob("surgery-*")):  # so it retrains now
            killed = _kill_task(process.pid)
        time.sleep(0.05)
    assert killed, process.communicate()[1].decode()
    _, said = process.communicate()
    assert process.returncode == 0, said.decode()
    assert content(out) == content(tmp_path / "local" / "bundle")


def _kill_task(driver: int) -> int:
    """Kill one Ray worker of a driver that is at work; returns its process id, or 0 when there is none."""
    parents = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if entry.name.isdigit():
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    for pid in parents:
        above = pid
        while above in parents and above != driver:
            above = parents[above]
        with contextlib.suppress(OSError):
            if above == driver and Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::_work"):
                os.kill(pid, signal.SIGKILL)
                return pid
    return 0
