"""`edvit-tf device` as it was before there was `Measure`: to gRPC there is no such method.

`python -m tests.fleet.old_device run …` as `python -m edvit_tf.cli.main device run …`.
"""

import sys
from typing import Any

from edvit_tf.cli.main import main
from edvit_tf.rpc import channel


class _Before(channel.OnlyAggregators):
    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        known = not details.method.endswith("/Measure")
        return await super().intercept_service(continuation, details) if known else None


if __name__ == "__main__":
    setattr(channel, "OnlyAggregators", _Before)  # noqa: B010 (a name that mypy knows as a class)
    sys.exit(main(["device", *sys.argv[1:]]))
