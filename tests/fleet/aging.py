"""An aggregator that lives for a year of its wall clock, and renews what ends: a JSON line for each answer.

`python -m tests.fleet.aging STATE BUNDLE SECONDS ADDRESS…`; besides the links that it keeps it makes new ones
all the time, because a certificate counts at the handshake.
"""

import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509

from edvit_tf.bundle.reader import open_bundle
from edvit_tf.errors import EdvitError
from edvit_tf.fleet import Aggregator, Announced, at_address, deploy, signed
from edvit_tf.fleet.hello import say_hello
from edvit_tf.fleet.renew import Keyring, keep_renewed
from edvit_tf.rpc.certificates import utc_now
from tests.fleet.asking import say
from tests.fleet.fakes import picture

ROUND_SECONDS = 0.2


async def main(state: Path, folder: str, seconds: float, addresses: list[str]) -> None:
    """Answer and renew; say what went wrong."""
    keyring = Keyring(state)
    bundle = signed(open_bundle(folder), keyring.keys, state)
    devices = [at_address(address) for address in addresses]
    deployment = await deploy(bundle, devices, connect=keyring.connect)
    async with Aggregator(bundle, deployment, connect=keyring.connect, browse=False) as fleet:
        warnings: list[str] = []
        renewing = asyncio.create_task(
            keep_renewed(keyring, fleet.status, warnings.append, interval=ROUND_SECONDS)
        )
        say(ready=True)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            errors = await greet(keyring, deployment.devices)
            try:
                complete = (await fleet.classify(picture(bundle))).complete
            except EdvitError as error:
                complete = False
                errors.append(error.message)
            say(complete=complete, errors=errors, date=utc_now().isoformat(), own=own_end(keyring))
            await asyncio.sleep(0.05)
        renewing.cancel()
        say(warnings=warnings)


async def greet(keyring: Keyring, devices: Sequence[Announced]) -> list[str]:
    """A new handshake with each device; what went wrong."""
    errors = []
    for device in devices:
        link = keyring.connect(device.address, device.id)
        try:
            await say_hello(link, device.id, timeout=2.0)
        except EdvitError as error:
            errors.append(error.message)
        finally:
            await link.close()
    return errors


def own_end(keyring: Keyring) -> str:
    """When the aggregator's own certificate ends."""
    certificate = x509.load_pem_x509_certificate(keyring.keys.credentials.certificate)
    return certificate.not_valid_after_utc.isoformat()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]), sys.argv[4:]))
