"""An impostor that announces a device's id and name beside it gets nothing, and the device is served."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from edvit_tf.bundle.reader import Bundle
from edvit_tf.rpc.edvit_pb2 import PairRequest
from edvit_tf.rpc.pairing import read_token
from tests.fleet.fakes import picture
from tests.fleet.processes import command, device_fleet, elsewhere, started
from tests.fleet.test_processes import edvit
from tests.net import FAR, Network, Weather, network

pytestmark = [pytest.mark.netns, pytest.mark.fault]


def verb(net: Network, *arguments: str | Path) -> Any:
    """The last line of JSON that a verb prints where the aggregator is."""
    run = net.near(*command(*arguments, "--json"))
    done = subprocess.run(run, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_an_impostor_beside_the_device_gets_no_byte_of_a_model_a_picture_or_a_token(
    bundle: Bundle, tmp_path: Path
) -> None:
    with device_fleet(["ash"], tmp_path) as made:
        pass
    status, (token,) = edvit("fleet", "token", "--state", made.folder, "--uses", "5")
    assert status == 0
    assert isinstance(token, dict)
    path = tmp_path / "picture.png"
    image = picture(bundle)
    Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(path)
    with network(Weather(), seed=9) as net:
        device = elsewhere(made.devices[0], interface=FAR, under=net.far())
        arguments = (FAR, made.devices[0].id, "ash", token["id"])
        pose = net.far(sys.executable, "-m", "tests.fleet.impostor", *arguments)
        with (
            started(device) as (address,),
            subprocess.Popen(pose, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as impostor,
        ):
            try:
                assert impostor.stdout
                there = json.loads(impostor.stdout.readline())
                rows = verb(net, "fleet", "discover", "--timeout", "5", "--state", made.folder)
                seen = {row["address"]: row["state"] for row in rows}
                assert seen[address] == "up"
                assert seen[f"{FAR}:{there['port']}"] == "down", "it is seen, and named"
                placed = verb(net, "fleet", "deploy", bundle.path, "--timeout", "6", "--state", made.folder)
                assert {row["address"] for row in placed["placement"]} == {address}
                for _ in range(3):
                    assert verb(net, "infer", path, "--state", made.folder)["complete"]
                assert impostor.stdin
                impostor.stdin.write("\n")
                impostor.stdin.flush()
                heard = json.loads(impostor.stdout.readline())
            finally:
                impostor.kill()
    assert heard["calls"] == 0
    said = [PairRequest.FromString(bytes.fromhex(message)) for message in heard["paired"]]
    assert {message.WhichOneof("part") for message in said} == {"offer", "proof"}, "and no certificate"
    secret = read_token(token["token"]).secret
    for message in said:
        data = message.SerializeToString()
        assert secret not in data
        assert len(data) < 2000
