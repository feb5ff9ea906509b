"""The demo's report keeps its contract, and its bars can fail. The demo itself is run by `make demo`."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edvit_tf.bundle.reader import Bundle
from edvit_tf.cli.demo_report import FleetRun, accuracy_table, device_table, make_report, outage_table
from edvit_tf.fleet import Answer, DeviceReply
from edvit_tf.runtime.ensemble import Evaluation
from tests.check_demo import shortfalls


def reply(name: str, submodel: str, milliseconds: float) -> DeviceReply:
    feature = {submodel: np.zeros(32, np.float32)}
    return DeviceReply(name, name, (submodel,), feature, milliseconds, 0.1, 860, 186)


def answer(*replies: DeviceReply, expected: int) -> Answer:
    complete = len(replies) == expected
    return Answer("a", (1.0,), complete, len(replies), expected, (), (), 3.0, replies)


@pytest.fixture
def report(bundle: Bundle) -> Any:
    ids = [submodel.id for submodel in bundle.manifest.submodels]
    whole = [
        answer(*(reply(name, part, 1.0 + step) for name, part in zip("xy", ids, strict=True)), expected=2)
        for step in range(3)
    ]
    run = FleetRun(tuple(whole), (answer(reply("y", ids[1], 1.0), expected=2),), ids[0], True, 2.5)
    evaluation = Evaluation(0.9, 0.86, 0.89, {ids[0]: 0.8, ids[1]: 0.7}, 10)
    made = make_report(bundle, evaluation, run, {"export": 1.0})
    for table in (accuracy_table(evaluation, made), device_table(made), outage_table(evaluation, run)):
        assert table.row_count > 1
    return made


def test_the_report_is_what_others_rely_on(report: Any, bundle: Bundle) -> None:
    written = json.loads(json.dumps(report.to_json()))
    assert written.keys() == {
        "teacher_accuracy", "fused_accuracy", "single_accuracy", "degraded_accuracy", "recovered", "devices",
        "teacher_bytes", "size_ratio_per_device", "size_ratio_total", "discovered_by", "seconds",
    }  # fmt: skip
    assert written["degraded_accuracy"] == 0.8
    first, second = written["devices"]
    assert first.keys() == {
        "name", "classes", "bytes", "p50_ms", "p95_ms", "sent_bytes", "received_bytes",
    }  # fmt: skip
    assert (first["name"], first["p50_ms"], first["sent_bytes"]) == ("x", 2.0, 860)
    assert sorted(first["classes"] + second["classes"]) == sorted(bundle.manifest.classes)
    sizes = [device["bytes"] for device in written["devices"]]
    assert written["size_ratio_per_device"] == written["teacher_bytes"] / max(sizes)
    assert written["size_ratio_total"] == written["teacher_bytes"] / sum(sizes)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"teacher_accuracy": 0.8, "fused_accuracy": 0.8}, "teacher reaches"),
        ({"fused_accuracy": 0.87}, "fused loses"),
        ({"single_accuracy": 0.895}, "single student"),
        ({"degraded_accuracy": 0.89}, "a lost device"),
        ({"recovered": False}, "taken back"),
        ({"discovered_by": "address"}, "zeroconf"),
        ({"devices": ()}, "3 devices"),
    ],
)
def test_every_bar_can_fail(report: Any, change: dict[str, Any], said: str) -> None:
    three = replace(report, devices=(*report.devices, report.devices[0]))
    assert shortfalls(json.loads(json.dumps(three.to_json()))) == []
    found = shortfalls(json.loads(json.dumps(replace(three, **change).to_json())))
    assert any(said in sentence for sentence in found)
