"""An aggregator in a namespace: deploy to some addresses, then ask again and again, a JSON line each.

`python -m tests.fleet.asking STATE BUNDLE SECONDS ADDRESS…`, where STATE is the fleet's folder with its keys.
"""

import asyncio
import json
import sys
import time
from pathlib import Path

from edvit_tf.bundle.reader import open_bundle
from edvit_tf.errors import EdvitError
from edvit_tf.fleet import Aggregator, at_address, deploy, load_keys, signed, with_keys
from edvit_tf.rpc.edvit_pb2 import InferReply, InferRequest
from edvit_tf.rpc.link import Link
from tests.fleet.fakes import picture


class Counting:
    """Links that count the pictures that are sent over them, however often one is tried."""

    def __init__(self, state: Path) -> None:
        self._connect = with_keys(load_keys(state))
        self.sent = 0

    def connect(self, address: str, device_id: str) -> Link:
        """A link as the fleet's keys make it."""
        link = self._connect(address, device_id)
        infer = link.infer

        async def counted(request: InferRequest, *, timeout: float) -> InferReply:
            self.sent += 1
            return await infer(request, timeout=timeout)

        link.infer = counted  # type: ignore[method-assign]
        return link


async def main(state: Path, folder: str, seconds: float, addresses: list[str]) -> None:
    """Print how long each answer took, from how many, how often it asked, and of which error it was."""
    bundle = signed(open_bundle(folder), load_keys(state), state)
    counting = Counting(state)
    devices = [at_address(address) for address in addresses]
    deployment = await deploy(bundle, devices, connect=counting.connect)
    async with Aggregator(bundle, deployment, connect=counting.connect, browse=False) as fleet:
        say(ready=True)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            start, before = time.monotonic(), counting.sent
            try:
                answer = await fleet.classify(picture(bundle))
                result = {"answered": answer.answered, "expected": answer.expected, "error": ""}
            except EdvitError as error:
                result = {"answered": 0, "expected": 0, "error": error.code}
            sent = counting.sent - before
            say(**result, at=time.monotonic(), seconds=time.monotonic() - start, sent=sent)
            await asyncio.sleep(0.05)


def say(**values: object) -> None:
    """Print one line at once."""
    print(json.dumps(values), flush=True)  # noqa: T201


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]), sys.argv[4:]))
