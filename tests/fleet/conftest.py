"""The kinds of device that a fleet's tests run with."""

import pytest

from edvit_tf.cli.demo_devices import PYTHON
from tests.fleet import jvm
from tests.fleet.processes import Program


@pytest.fixture(scope="module", params=["python", pytest.param("jvm", marks=pytest.mark.android)])
def program(request: pytest.FixtureRequest) -> Program:
    """What runs the device that a test is about."""
    return jvm.program() if request.param == "jvm" else PYTHON
