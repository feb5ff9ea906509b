"""The fleet's benchmark, once around: its figures are measured and fit each other."""

import json

import pytest

from edvit_tf.bundle.reader import Bundle
from edvit_tf.cli.main import main

pytestmark = [pytest.mark.fleet, pytest.mark.long]


def test_every_figure_is_measured(bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fleet", "benchmark", str(bundle.path), "--rounds", "1", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["devices"] == 10
    assert said["request_bytes"] > 224 * 224 * 3
    ratio = said["answer_milliseconds"] / said["bare_milliseconds"]
    assert said["overhead_ratio"] == pytest.approx(ratio)
    assert said["throughput_ratio"] == pytest.approx(said["answers_a_second"] / said["bare_a_second"])
    assert 0 < said["failover_seconds"] < 8
    assert 0 < said["discover_seconds"] < 10
