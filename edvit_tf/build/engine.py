"""Independent jobs, each in a process of its own: the seam where a cluster can take over.

A process for each training, because TensorFlow gives back no memory; processes are spawned, because it
survives no fork. Each has one thread: two trainings side by side are faster than one on two cores.
"""

import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

from edvit_tf.build.progress import Progress
from edvit_tf.errors import EdvitError

Report = Callable[[float, str], None]

_THREADS = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")
_SECONDS_TO_END = 5.0


@dataclass(frozen=True, slots=True)
class Job:
    """A function of a module (a spawned process finds it by name), its argument, and what to call it."""

    name: str
    function: Callable[[Any, Report], Any]
    argument: object


def run(jobs: Sequence[Job], *, workers: int, stage: str, progress: Progress) -> list[Any]:
    """Run all jobs, at most `workers` at a time, and return their results in the order of the jobs.

    However this ends, Ctrl-C included, no worker is left behind.

    Raises:
        EdvitError: what a job raised, as itself; or a worker ended without an answer.
        RuntimeError: another exception in a job, with its traceback: a bug.
    """
    context = multiprocessing.get_context("spawn")
    results: dict[int, Any] = {}
    done = [0.0] * len(jobs)
    running: dict[Connection, tuple[int, SpawnProcess]] = {}
    waiting = list(enumerate(jobs))
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                number, job = waiting.pop(0)
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(target=_work, args=(job, theirs), daemon=True)
                process.start()
                theirs.close()  # so that the end of the worker is the end of the pipe
                running[ours] = (number, process)
            for connection in wait(list(running)):
                assert isinstance(connection, Connection)  # noqa: S101  we put nothing else in
                number, process = running[connection]
                kind, value = _receive(connection, process, jobs[number].name)
                if kind == "progress":
                    done[number], message = value
                    progress.update(stage, sum(done) / len(jobs), f"{jobs[number].name}: {message}")
                    continue
                results[number] = value
                done[number] = 1.0
                progress.update(stage, sum(done) / len(jobs), f"{jobs[number].name}: done")
                process.join(_SECONDS_TO_END)
                del running[connection]
                connection.close()
    finally:
        _end([process for _, process in running.values()])
    return [results[number] for number in range(len(jobs))]


def _receive(connection: Connection, process: SpawnProcess, name: str) -> tuple[str, Any]:
    try:
        kind, value = connection.recv()
    except EOFError:
        process.join(_SECONDS_TO_END)
        raise EdvitError(
            f"the worker of {name} ended without an answer (exit status {process.exitcode}): "
            "if the machine was short of memory, try again with --workers 1"
        ) from None
    if kind == "error":
        raise value
    if kind == "bug":
        raise RuntimeError(f"{name} failed in its worker:\n{value}")
    return kind, value


def _end(processes: list[SpawnProcess]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(_SECONDS_TO_END)
        if process.is_alive():
            process.kill()
            process.join()


def _work(job: Job, connection: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, and it ends us
    os.environ.update(dict.fromkeys(_THREADS, "1"))

    def report(done: float, message: str) -> None:
        connection.send(("progress", (done, message)))

    try:
        connection.send(("result", job.function(job.argument, report)))
    except EdvitError as error:
        connection.send(("error", error))
    except BrokenPipeError:
        return  # the parent is gone: nobody waits for an answer
    except Exception:  # noqa: BLE001  passed on to the parent whole, which raises it
        connection.send(("bug", traceback.format_exc()))
