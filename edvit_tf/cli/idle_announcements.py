"""`python -m edvit_tf.cli.idle_announcements NUMBER`: announce so many devices that are not there.

On loopback. It prints their ids when all are announced, and says goodbye when standard input ends.
"""

import asyncio
import secrets
import sys
from contextlib import AsyncExitStack

from edvit_tf.cli.idle_fleet import RUNTIME
from edvit_tf.cli.output import emit
from edvit_tf.device.advertise import advertisement
from edvit_tf.device.service import Facts
from edvit_tf.rpc.address import LOOPBACK

NOBODYS_PORT = 9


async def main(number: int) -> None:
    """Announce them until standard input ends."""
    ids = [secrets.token_hex(32) for _ in range(number)]
    async with AsyncExitStack() as exits:
        await asyncio.gather(
            *(
                exits.enter_async_context(
                    advertisement(Facts(device, f"idle-{device[:6]}", RUNTIME, 0), LOOPBACK, NOBODYS_PORT)
                )
                for device in ids
            )
        )
        emit(ids)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
