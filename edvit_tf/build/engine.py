"""Independent jobs, each in a process of its own; `cluster.py` runs the same jobs over several machines.

A process for each training, because TensorFlow gives back no memory; processes are spawned, because it
survives no fork. Each has one thread: two trainings side by side are faster than one on two cores. Sub-models
of one shape are one program to XLA: where there are enough of them, what one worker has compiled, those after
it load.
"""

import importlib
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from edvit_tf.build.progress import Progress
from edvit_tf.errors import EdvitError

Report = Callable[[float, str], None]

THREADS = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")
XLA_FLAGS = "TF_XLA_FLAGS"
_SECONDS_TO_END = 5.0
_ROOM_FOR_COMPILED = 1_000_000_000  # bytes; with less XLA keeps nothing, for it fails when a disk is full
_TURNS_WORTH_SHARING = 3  # of each worker: what is kept takes a third of the time again that loading it saves


@dataclass(frozen=True, slots=True)
class Job:
    """What to call it, a function as "module:name" (only the worker imports it), and its argument."""

    name: str
    function: str
    argument: object


def run(
    jobs: Sequence[Job], *, workers: int, stage: str, progress: Progress, alike: bool = False
) -> list[Any]:
    """Run all jobs, at most `workers` at a time, and return their results in the order of the jobs.

    However this ends, Ctrl-C included, no worker is left behind.

    Args:
        jobs: what to run.
        workers: processes at a time.
        stage: for `progress`.
        progress: told how far the jobs are.
        alike: whether most of them compile the same programs.

    Raises:
        EdvitError: what a job raised, as itself; or a worker ended without an answer.
        RuntimeError: another exception in a job, with its traceback: a bug.
    """
    results: dict[int, Any] = {}
    done = [0.0] * len(jobs)
    running: dict[Connection, _Worker] = {}
    waiting = list(enumerate(jobs))
    share = alike and len(jobs) >= _TURNS_WORTH_SHARING * workers
    with tempfile.TemporaryDirectory(prefix="edvit-tf-") as folder:
        try:
            while waiting or running:
                while waiting and len(running) < workers:
                    worker = _start(*waiting.pop(0), Path(folder), share=share)
                    running[worker.connection] = worker
                for connection in wait(list(running)):
                    worker = running[connection]  # type: ignore[index]  # we put only connections in
                    kind, value = _receive(worker)
                    message = "done"
                    if kind == "progress":
                        done[worker.number], message = value
                    else:
                        results[worker.number], done[worker.number] = value, 1.0
                        worker.process.join(_SECONDS_TO_END)
                        del running[worker.connection]
                        worker.connection.close()
                    progress.update(stage, sum(done) / len(jobs), f"{worker.job.name}: {message}")
        finally:
            _end([worker.process for worker in running.values()])
    return [results[number] for number in range(len(jobs))]


@dataclass(frozen=True, slots=True)
class _Worker:
    """A job that runs: its process, our end of the pipe, and where its standard error goes."""

    number: int
    job: Job
    process: SpawnProcess
    connection: Connection
    log: Path


def _start(number: int, job: Job, folder: Path, *, share: bool) -> _Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    log = folder / f"{number}.log"
    process = context.Process(target=_work, args=(job, theirs, str(log), share), daemon=True)
    process.start()
    theirs.close()  # so that the end of the worker is the end of the pipe
    return _Worker(number, job, process, ours, log)


def _receive(worker: _Worker) -> tuple[str, Any]:
    name = worker.job.name
    try:
        kind, value = worker.connection.recv()
    except EOFError:
        worker.process.join(_SECONDS_TO_END)
        if worker.log.exists():
            sys.stderr.write(worker.log.read_text(errors="replace"))
        raise EdvitError(
            f"the worker of {name} ended without an answer (exit status {worker.process.exitcode}): "
            "if the machine was short of memory, try again with --workers 1"
        ) from None
    return kind, value if kind == "progress" else result_of(name, kind, value)


def answer(job: Job, report: Report) -> tuple[str, Any]:
    """Call a job's function: ("result", value), ("error", what is for the user) or ("bug", a traceback)."""
    try:
        module, name = job.function.split(":")
        function = getattr(importlib.import_module(module), name)
        return "result", function(job.argument, report)
    except EdvitError as error:
        return "error", error
    except BrokenPipeError:
        raise  # whom it reports to is gone
    except Exception:  # noqa: BLE001  passed on whole
        return "bug", traceback.format_exc()


def result_of(name: str, kind: str, value: Any) -> Any:
    """The value of what `answer` gave, or its error raised."""
    if kind == "error":
        raise value
    if kind == "bug":
        raise RuntimeError(f"{name} failed in its worker:\n{value}")
    return value


def _share_compiled(folder: Path) -> None:
    """Have XLA keep what it compiles in this folder, and load what it finds there."""
    if XLA_FLAGS not in os.environ and shutil.disk_usage(folder).free > _ROOM_FOR_COMPILED:
        os.environ[XLA_FLAGS] = f"--tf_xla_persistent_cache_directory={folder / 'compiled'}"


def _end(processes: list[SpawnProcess]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(_SECONDS_TO_END)
        if process.is_alive():
            process.kill()
            process.join()


def _end_with_parent() -> None:
    """A parent that is killed outright ends nobody: its workers see to that themselves."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _work(job: Job, connection: Connection, log: str, share: bool) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, and it ends us
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # TensorFlow leaves files in the folder for temporary ones when it is ended: ours goes with the engine.
    tempfile.tempdir = str(Path(log).parent)
    os.environ.update(dict.fromkeys(THREADS, "1"))
    if share:
        _share_compiled(Path(tempfile.tempdir))
    # TensorFlow greets on standard error; what a worker writes there matters only when it dies.
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 2)

    def report(done: float, message: str) -> None:
        connection.send(("progress", (done, message)))

    try:
        connection.send(answer(job, report))
    except BrokenPipeError:
        return  # the parent is gone: nobody waits for an answer
