"""An aggregator whose wall clock moves, and that renews what ends: a JSON line for each answer.

`python -m tests.fleet.aging STATE BUNDLE ADDRESS…` runs until it is killed. Besides the links that it keeps
it makes new ones all the time, because a certificate counts at the handshake.
"""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509

from edvit_tf.bundle.reader import open_bundle
from edvit_tf.errors import EdvitError
from edvit_tf.fleet import Aggregator, Announced, Timing, at_address, deploy, signed
from edvit_tf.fleet.hello import say_hello
from edvit_tf.fleet.liveness import Limits
from edvit_tf.fleet.renew import Keyring, keep_renewed
from edvit_tf.rpc.certificates import utc_now
from tests.fleet.asking import say
from tests.fleet.fakes import picture

ROUND_SECONDS = 0.2
# What is lost here is lost to a clock, and not to a machine that does other things too.
PATIENCE = 20.0
PATIENT = Timing(hello=PATIENCE, limits=Limits(slow_beat=PATIENCE, slow_picture=PATIENCE))


async def main(state: Path, folder: str, addresses: list[str]) -> None:
    """Answer and renew; say what went wrong."""
    keyring = Keyring(state)
    bundle = signed(open_bundle(folder), keyring.keys, state)
    devices = [at_address(address) for address in addresses]
    deployment = await deploy(bundle, devices, connect=keyring.connect)
    async with Aggregator(
        bundle, deployment, connect=keyring.connect, deadline=PATIENCE, browse=False, timing=PATIENT
    ) as fleet:
        await fleet.complete(PATIENCE)
        warnings: list[str] = []
        renewing = asyncio.create_task(
            keep_renewed(keyring, fleet.status, warnings.append, interval=ROUND_SECONDS)
        )
        say(ready=True)
        while not renewing.done():
            errors = await greet(keyring, deployment.devices) + warnings
            try:
                complete = (await fleet.classify(picture(bundle))).complete
            except EdvitError as error:
                complete = False
                errors.append(error.message)
            say(complete=complete, errors=errors, date=utc_now().isoformat(), own=own_end(keyring))
            await asyncio.sleep(0.05)


async def greet(keyring: Keyring, devices: Sequence[Announced]) -> list[str]:
    """A new handshake with each device; what went wrong."""
    errors = []
    for device in devices:
        link = keyring.connect(device.address, device.id)
        try:
            await say_hello(link, device.id, timeout=PATIENCE)
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
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]))
