"""One aggregator at a time."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edvit_tf.errors import UsageError
from edvit_tf.fleet.hold import Running, hold, running

HOLDER = """
import sys, time
from pathlib import Path
from edvit_tf.fleet.hold import Running, hold
with hold(Path(sys.argv[1])) as holding:
    print("held", flush=True)
    time.sleep(60)
"""


def test_it_says_who_holds_and_where_it_listens(tmp_path: Path) -> None:
    assert running(tmp_path) is None
    with hold(tmp_path) as holding:
        assert running(tmp_path) == Running(os.getpid(), "", "")
        holding.say(Running(os.getpid(), "127.0.0.1:1", "127.0.0.1:23"))
        assert running(tmp_path) == Running(os.getpid(), "127.0.0.1:1", "127.0.0.1:23")
        holding.say(Running(os.getpid(), "", ""))
        assert running(tmp_path) == Running(os.getpid(), "", "")
    assert running(tmp_path) is None


@pytest.mark.fault
def test_a_second_process_is_refused_until_the_first_is_gone_however_it_went(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"held\n"
            with pytest.raises(UsageError, match=f"process {process.pid} ") as caught, hold(tmp_path):
                pass
            assert caught.value.code == "state.held"
        finally:
            process.send_signal(signal.SIGKILL)
        process.wait()
    with hold(tmp_path):
        pass
