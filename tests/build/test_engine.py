import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from edvit_tf.build import engine
from edvit_tf.build.engine import XLA_FLAGS, Job, Report, run
from edvit_tf.build.progress import Silent
from edvit_tf.errors import DataError, EdvitError

HERE = "tests.build.test_engine"


def square(number: int, report: Report) -> int:
    report(0.5, "half")
    return number * number


def threads(_: object, report: Report) -> str | None:  # noqa: ARG001
    return os.environ.get("TF_NUM_INTRAOP_THREADS")


def compiled(numbers: int, report: Report) -> tuple[str, list[str], list[float]]:  # noqa: ARG001
    from edvit_tf.vit.keras import tf

    step = tf.function(lambda x: tf.sin(x) * 3, jit_compile=True)
    found = step(tf.range(numbers, dtype=tf.float32)).numpy().tolist()
    folder = os.environ[XLA_FLAGS].partition("=")[2]
    return folder, sorted(file.name for file in Path(folder).glob("*")), found


def flags(_: object, report: Report) -> str | None:  # noqa: ARG001
    return os.environ.get(XLA_FLAGS)


def refuse(_: object, report: Report) -> None:  # noqa: ARG001
    raise DataError("no pictures", code="data.none")


def crash(numbers: list[int], report: Report) -> int:  # noqa: ARG001
    return numbers[1]


def die(_: object, report: Report) -> None:  # noqa: ARG001
    print("last words", file=sys.stderr, flush=True)  # noqa: T201
    os.kill(os.getpid(), signal.SIGKILL)


def sleep(folder: str, report: Report) -> None:  # noqa: ARG001
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(60)


class Told:
    def __init__(self) -> None:
        self.updates: list[tuple[str, float, str]] = []

    def update(self, stage: str, done: float, message: str) -> None:
        self.updates.append((stage, done, message))


def test_results_come_in_the_order_of_the_jobs_and_progress_adds_up() -> None:
    told = Told()
    jobs = [Job(f"job-{number}", f"{HERE}:square", number) for number in range(3)]
    assert run(jobs, workers=2, stage="squares", progress=told) == [0, 1, 4]
    done = [share for _, share, _ in told.updates]
    assert done == sorted(done)
    assert told.updates[-1][:2] == ("squares", 1.0)
    assert any(message == "job-1: half" for _, _, message in told.updates)


def test_a_worker_has_one_thread_and_the_environment_here_is_untouched() -> None:
    before = dict(os.environ)
    assert run([Job("threads", f"{HERE}:threads", None)], workers=1, stage="s", progress=Silent()) == ["1"]
    assert dict(os.environ) == before


def test_workers_compile_the_same_program_once_and_nothing_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(XLA_FLAGS, raising=False)
    jobs = [Job(f"job-{count}", f"{HERE}:compiled", count) for count in (4, 4, 5)]
    (folder, first, value), (_, second, loaded), (_, third, _) = run(
        jobs, workers=1, stage="s", progress=Silent(), alike=True
    )
    assert len(first) == 1
    assert second == first
    assert loaded == value
    assert len(third) == 2
    assert not Path(folder).exists()


def test_flags_for_xla_that_somebody_has_set_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(XLA_FLAGS, "--tf_xla_clustering_debug=false")
    jobs = [Job("flags", f"{HERE}:flags", None)] * 3
    found = run(jobs, workers=1, stage="s", progress=Silent(), alike=True)
    assert found == ["--tf_xla_clustering_debug=false"] * 3


@pytest.mark.parametrize(("alike", "workers"), [(False, 1), (True, 2)])
def test_few_jobs_and_jobs_that_differ_keep_nothing(
    monkeypatch: pytest.MonkeyPatch, alike: bool, workers: int
) -> None:
    monkeypatch.delenv(XLA_FLAGS, raising=False)
    jobs = [Job("flags", f"{HERE}:flags", None)] * 3
    assert run(jobs, workers=workers, stage="s", progress=Silent(), alike=alike) == [None] * 3


def test_a_disk_with_little_room_keeps_nothing_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(XLA_FLAGS, raising=False)
    monkeypatch.setattr(engine, "_ROOM_FOR_COMPILED", 1 << 62)
    engine._share_compiled(tmp_path)
    assert XLA_FLAGS not in os.environ


def test_an_error_for_the_user_comes_back_as_itself() -> None:
    with pytest.raises(DataError, match="no pictures") as caught:
        run([Job("bad", f"{HERE}:refuse", None)], workers=1, stage="s", progress=Silent())
    assert caught.value.code == "data.none"


def test_a_bug_comes_back_with_its_traceback() -> None:
    with pytest.raises(RuntimeError, match=r"(?s)bad failed in its worker.*IndexError"):
        run([Job("bad", f"{HERE}:crash", [])], workers=1, stage="s", progress=Silent())


def test_a_worker_that_dies_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(EdvitError, match=r"worker of bad ended without an answer \(exit status -9\)"):
        run([Job("bad", f"{HERE}:die", None)], workers=1, stage="s", progress=Silent())
    assert "last words" in capsys.readouterr().err


def test_the_others_are_ended_when_one_fails(tmp_path: Path) -> None:
    jobs = [
        Job("long", f"{HERE}:sleep", str(tmp_path)),
        Job("bad", f"{HERE}:_refuse_when_started", str(tmp_path)),
    ]
    with pytest.raises(DataError):
        run(jobs, workers=2, stage="s", progress=Silent())
    _assert_gone(tmp_path)


def _refuse_when_started(folder: str, report: Report) -> None:  # noqa: ARG001
    _wait_for_files(Path(folder), 1)
    raise DataError("enough")


def test_ctrl_c_leaves_no_worker(tmp_path: Path) -> None:
    script = (
        "from edvit_tf.build.engine import Job, run\n"
        "from edvit_tf.build.progress import Silent\n"
        "from tests.build.test_engine import HERE\n"
        "if __name__ == '__main__':\n"
        f"    jobs = [Job(str(n), HERE + ':sleep', {str(tmp_path)!r}) for n in range(2)]\n"
        "    run(jobs, workers=2, stage='s', progress=Silent())\n"
    )
    file = tmp_path.parent / "interrupted.py"
    file.write_text(script)
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'converters'}"}
    process: Any = subprocess.Popen([sys.executable, str(file)], env=environment, stderr=subprocess.DEVNULL)
    _wait_for_files(tmp_path, 2)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) != 0
    _assert_gone(tmp_path)


def _wait_for_files(folder: Path, count: int) -> None:
    end = time.monotonic() + 60
    while len(list(folder.iterdir())) < count:
        assert time.monotonic() < end
        time.sleep(0.05)


def _assert_gone(folder: Path) -> None:
    pids = [int(file.name) for file in folder.iterdir()]
    assert pids
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
