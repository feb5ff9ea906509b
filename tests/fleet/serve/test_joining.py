"""A machine that cannot be called joins an aggregator that runs, by its token alone, and serves."""

from datetime import timedelta
from pathlib import Path

import pytest

from edvit_tf.bundle.reader import Bundle
from edvit_tf.fleet.state import FleetState
from edvit_tf.fleet.tokens import Tokens
from edvit_tf.rpc.certificates import fingerprint
from tests.fleet.processes import DeviceProcess, deployed_fleet
from tests.fleet.serve.process import serving, until

pytestmark = [pytest.mark.fleet, pytest.mark.long]


@pytest.mark.parametrize("named", [True, False])
def test_a_newcomer_dials_in_joins_and_is_up(bundle: Bundle, tmp_path: Path, *, named: bool) -> None:
    """At the address that it is given, or where its fleet's aggregator is announced."""
    with deployed_fleet(["ash", "beech"], tmp_path, bundle, "in") as made:
        authority = fingerprint(made.keys.authority.certificate)
        token = Tokens(made.folder).issue(authority, life=timedelta(hours=1))
        newcomer = DeviceProcess(
            "cedar", tmp_path, options=("--join", str(token), "--dial", made.dial if named else "auto")
        )
        with serving(made.folder, tmp_path / "log", *made.listening), FleetState(made.folder) as state:
            try:
                newcomer.begin()
                assert "waiting" in newcomer.said()
                newcomer.wait_ready()
                until(
                    lambda: any(
                        device.id == newcomer.id and device.state == "up" for device in state.devices()
                    ),
                    15.0,
                )
            finally:
                newcomer.end()
        assert "has joined the fleet" in (tmp_path / "log").read_text()
