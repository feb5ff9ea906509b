"""`edvit-tf device` with a stand-in for a Coral: it says that it has one, and the processor computes.

What is made for the accelerator is the larger file in the bundles of these tests, and said to run faster.

`python -m tests.fleet.coral_device run …` as `python -m edvit_tf.cli.main device run …`.
"""

import sys
from dataclasses import replace
from pathlib import Path

from edvit_tf.cli.main import main
from edvit_tf.device import agent
from edvit_tf.device.engine import Runtime, installed_runtime
from edvit_tf.runtime.check import Verdict
from edvit_tf.runtime.delegate import Accelerator


def _found(_: str) -> Accelerator:
    return Accelerator("edgetpu", "", "", "coral")


def _runtime(delegate: str) -> Runtime:
    usual = installed_runtime(delegate)

    def verify(flatbuffer: Path, vector: Path) -> Verdict:
        return replace(usual.verify(flatbuffer, vector), microseconds=10**9 // flatbuffer.stat().st_size)

    return replace(usual, verify=verify)


if __name__ == "__main__":
    setattr(agent, "find_accelerator", _found)  # noqa: B010 (mypy knows what these are)
    setattr(agent, "installed_runtime", _runtime)  # noqa: B010
    sys.exit(main(["device", *sys.argv[1:]]))
