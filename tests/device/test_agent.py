"""Settings that are refused, and what is announced."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edvit_tf.device.advertise import SERVICE_TYPE, service_info
from edvit_tf.device.agent import DeviceSettings, Waiting
from edvit_tf.device.service import Facts
from edvit_tf.errors import UsageError
from edvit_tf.fleet.discover import SERVICE_TYPE as BROWSED
from edvit_tf.fleet.discover import cleaned


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"port": -1}, "--port must be from 0"),
        ({"port": 65536}, "--port must be from 0"),
        ({"memory_bytes": 0}, "--memory-mb must be more than 0"),
        ({"name": ""}, "--name must be"),
        ({"name": "x" * 64}, "--name must be"),
        ({"name": "a\nb"}, "--name must be"),
        ({"interface": "eth0"}, "IPv4 address"),
        ({"interface": ""}, "IPv4 address"),
    ],
)
def test_a_wrong_setting_is_one_sentence(wrong: dict[str, object], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        DeviceSettings(**{"name": "kitchen", "store": Path("x"), **wrong})  # type: ignore[arg-type]


def test_a_device_listens_everywhere_and_its_code_says_where_that_is() -> None:
    assert DeviceSettings("kitchen", Path("x")).interface == "0.0.0.0"  # noqa: S104
    link = Waiting("ab" * 32, "kitchen", "0.0.0.0", 7000, "7K2M-Q4ZD-9HXA").link  # noqa: S104
    places = link.partition("&address=")[2].partition("&")[0].split(",")
    assert places
    assert all(place.endswith(":7000") and not place.startswith("0.0.0.0") for place in places)  # noqa: S104


@given(st.text(min_size=1, max_size=63))
def test_every_name_can_be_announced_and_is_read_as_it_was(name: str) -> None:
    facts = Facts("ab" * 32, name, "ai-edge-litert/2.3.0", 1)
    info = service_info(facts, ["127.0.0.1"], 7434)
    label = info.name.removesuffix(f".{SERVICE_TYPE}")
    assert len(label.encode()) <= 63
    assert "." not in label
    assert facts.id[:12] in label
    assert {key.decode() for key in info.properties} == {
        "id", "name", "proto", "software", "runtime", "kind", "memory", "cores",
    }  # fmt: skip
    device = cleaned(info.decoded_properties, info.parsed_addresses(), info.port)
    assert device is not None
    assert (device.address, device.id, device.runtime) == ("127.0.0.1:7434", facts.id, facts.runtime)
    if name.isprintable():
        assert device.name == name


def test_devices_announce_what_aggregators_browse() -> None:
    assert SERVICE_TYPE == BROWSED


def test_a_device_never_meets_tensorflow() -> None:
    program = (
        "import sys, edvit_tf.device.agent, edvit_tf.device.local, edvit_tf.fleet, edvit_tf.fleet.sync;"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "grpc" in loaded
    assert not loaded & {"tensorflow", "tf_keras", "keras", "keras_cv"}
