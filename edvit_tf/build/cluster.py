"""The jobs of `engine.py` as Ray tasks: over the machines of a running cluster, or over this one.

Jobs leave what they make in the store, so every machine must see the cache under the same path. A task whose
worker dies is started again and goes on from what is stored there.
"""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from edvit_tf.build.engine import THREADS, Job, answer, result_of
from edvit_tf.build.progress import Progress
from edvit_tf.errors import EdvitError, MissingPackage, UsageError

RETRIES = 3
_SECONDS_BETWEEN_LOOKS = 0.5


def run(
    jobs: Sequence[Job], *, workers: int, stage: str, progress: Progress, shared: Path | None = None
) -> list[Any]:
    """Run all jobs, one for each free core of the cluster, and return their results in the order of the jobs.

    A cluster that runs already (`ray start`, or `RAY_ADDRESS`) is used; without one, `workers` cores of this
    machine. However this ends, no task is left behind.

    Args:
        jobs: what to run.
        workers: cores to use when there is no cluster yet.
        stage: for `progress`.
        progress: told how far the jobs are.
        shared: a folder that every worker must see.

    Raises:
        EdvitError: what a job raised, as itself; or its workers died again and again.
        MissingPackage: Ray is not installed.
        RuntimeError: another exception in a job, with its traceback: a bug.
    """
    if not jobs:
        return []
    with _connected(workers) as ray:
        board = ray.remote(num_cpus=0)(_Board).remote()
        # A process for each task, because TensorFlow gives back no memory.
        work = ray.remote(num_cpus=1, max_calls=1, max_retries=RETRIES)(_work)
        tasks = {
            work.remote(job, number, board, shared): (number, job.name) for number, job in enumerate(jobs)
        }
        results: dict[int, Any] = {}
        waiting = list(tasks)
        try:
            while waiting:
                done, waiting = ray.wait(waiting, timeout=_SECONDS_BETWEEN_LOOKS)
                for task in done:
                    number, name = tasks[task]
                    results[number] = _get(ray, task, name)
                told = ray.get(board.read.remote())
                shares = [1.0 if n in results else told.get(n, (0.0, ""))[0] for n in range(len(jobs))]
                for number, (_, message) in told.items():
                    said = "done" if number in results else message
                    progress.update(stage, sum(shares) / len(jobs), f"{jobs[number].name}: {said}")
        finally:
            for task in waiting:
                ray.cancel(task, force=True)
    return [results[number] for number in range(len(jobs))]


@contextmanager
def _connected(workers: int) -> Iterator[Any]:
    """Ray, connected to the cluster there is or else to a new one that ends with this."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
    try:
        import ray
    except ModuleNotFoundError:
        raise MissingPackage("--engine ray needs Ray: pip install 'edvit-tf[export,cluster]'") from None
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    with ExitStack() as ending:
        try:
            ray.init(address="auto", **quiet)
        except ConnectionError:
            # Not the usual folder for temporary files: the path of a socket is 107 bytes long at most.
            folder = ending.enter_context(tempfile.TemporaryDirectory(prefix="edvit-tf-", dir="/tmp"))
            ray.init(
                num_cpus=workers,
                include_dashboard=False,
                _node_ip_address="127.0.0.1",
                _temp_dir=folder,
                **quiet,
            )
        ending.callback(ray.shutdown)
        yield ray


def _get(ray: Any, task: Any, name: str) -> Any:
    try:
        return result_of(name, *ray.get(task))
    except ray.exceptions.RayError as error:
        raise EdvitError(
            f"the workers of {name} ended without an answer, {RETRIES + 1} times ({type(error).__name__}): "
            "if the machines were short of memory, give the cluster fewer cores on each"
        ) from None


class _Board:
    """Where the workers write how far they are."""

    def __init__(self) -> None:
        self._told: dict[int, tuple[float, str]] = {}

    def tell(self, number: int, done: float, message: str) -> None:
        self._told[number] = (done, message)

    def read(self) -> dict[int, tuple[float, str]]:
        return self._told


def _work(job: Job, number: int, board: Any, shared: Path | None) -> tuple[str, Any]:
    os.environ.update(dict.fromkeys(THREADS, "1"))
    if shared is not None and not shared.is_dir():
        return "error", UsageError(
            f"{os.uname().nodename} does not see {shared}: put the cache into a folder that all machines of "
            "the cluster have under the same path (--cache)"
        )
    return answer(job, lambda done, message: board.tell.remote(number, done, message))
