"""An aggregator in a namespace: deploy to some addresses, then ask again and again, a JSON line each.

`python -m tests.fleet.asking BUNDLE SECONDS ADDRESS…`
"""

import asyncio
import json
import sys
import time

from edvit_tf.bundle.reader import open_bundle
from edvit_tf.errors import EdvitError
from edvit_tf.fleet import Aggregator, at_address, deploy
from tests.fleet.fakes import picture


async def main(folder: str, seconds: float, addresses: list[str]) -> None:
    """Print how long each answer took, from how many, and of which error it was."""
    bundle = open_bundle(folder)
    deployment = await deploy(bundle, [at_address(address) for address in addresses])
    async with Aggregator(bundle, deployment, browse=False) as fleet:
        say(ready=True)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            start = time.monotonic()
            try:
                answer = await fleet.classify(picture(bundle))
                result = {"answered": answer.answered, "expected": answer.expected, "error": ""}
            except EdvitError as error:
                result = {"answered": 0, "expected": 0, "error": error.code}
            say(**result, at=time.monotonic(), seconds=time.monotonic() - start)
            await asyncio.sleep(0.05)


def say(**values: object) -> None:
    """Print one line at once."""
    print(json.dumps(values), flush=True)  # noqa: T201


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2]), sys.argv[3:]))
