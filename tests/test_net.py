"""The bad network is as bad as it says."""

import json
import subprocess
import sys
import time

import pytest

from tests.net import FAR, Network, Weather, network

pytestmark = pytest.mark.netns

ECHO = (
    "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('', 7777)); "
    "print('ready', flush=True)\n"
    "while True:\n data, who = s.recvfrom(2000); s.sendto(data, who)"
)
PING = """
import json, socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(0.5); times = []
for number in range(int(sys.argv[2])):
    start = time.monotonic(); s.sendto(number.to_bytes(4, 'big'), (sys.argv[1], 7777))
    try:
        while int.from_bytes(s.recv(100), 'big') != number: pass
        times.append(1000 * (time.monotonic() - start))
    except TimeoutError: pass
print(json.dumps(times))
"""


def ping(net: Network, number: int) -> list[float]:
    """Milliseconds of the round trips that came back."""
    command = net.near(sys.executable, "-c", PING, FAR, str(number))
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    times: list[float] = json.loads(done.stdout)
    return times


def test_delay_loss_and_partition_are_what_was_asked_for() -> None:
    with (
        network(Weather(delay_ms=20, jitter_ms=10), seed=1) as net,
        subprocess.Popen(net.far(sys.executable, "-c", ECHO), stdout=subprocess.PIPE) as echo,
    ):
        assert echo.stdout
        assert echo.stdout.readline() == b"ready\n"
        try:
            times = ping(net, 50)
            assert len(times) == 50
            assert min(times) >= 20
            assert 35 <= sorted(times)[25] <= 60
            net.change(Weather(loss=0.3))
            assert 10 <= len(ping(net, 50)) <= 38  # 0.7² of 50 is 25
            for cut in (Weather(cut_there=True), Weather(cut_back=True)):
                net.change(cut)
                assert not ping(net, 3)
            net.change(Weather())
            start = time.monotonic()
            assert len(ping(net, 20)) == 20
            assert time.monotonic() - start < 5
        finally:
            echo.kill()
