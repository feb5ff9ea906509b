"""An aggregator whose deployment changes while it answers: devices come and go, and sub-models move."""

import asyncio
import logging
from dataclasses import replace

from edvit_tf.errors import EdvitError, LinkError
from edvit_tf.fleet.aggregator import Aggregator, cancel
from edvit_tf.fleet.deploy import Deployment, ensure, examine
from edvit_tf.fleet.hello import say_hello
from edvit_tf.fleet.transfer import release

log = logging.getLogger(__name__)


class MovingAggregator(Aggregator):
    """What the keeper of a fleet needs beside answering."""

    async def place(self, deployment: Deployment) -> None:
        """Go over to another deployment of the same bundle: devices come and go, sub-models have moved."""
        self._deployment = deployment
        wanted = {device.id: device for device in deployment.devices}
        for device in [known for known in self._members if known not in wanted]:
            del self._members[device]
            await cancel([self._tasks.pop(device)])
        for key, announced in wanted.items():
            if key not in self._members:
                self._members[key] = self._member(announced)
                self._tasks[key] = asyncio.create_task(self._members[key].run())

    async def settle(self) -> None:
        """End the trial of the bundle: every device that can be reached lets the one before it go."""
        self._trial = False
        connected = {device: member for device, member in self._members.items() if member.link is not None}
        results = await asyncio.gather(*map(self._install, connected), return_exceptions=True)
        for member, result in zip(connected.values(), results, strict=True):
            if isinstance(result, EdvitError):
                log.warning("%s settles when it is back: %s", member.name, result.message)
            elif result is not None:
                raise result

    async def move(self, submodel: str, device: str) -> None:
        """Have a device hold a sub-model: install it there, and ask that device for it from then on.

        Raises:
            DeviceError: the device refused it; who held it before is asked still.
            LinkError: the device is not connected, or is lost on the way; likewise.
        """
        await self._install(device, submodel)
        moved = {**self._deployment.moved, submodel: device}
        if self._deployment.assignment[submodel] == device:
            del moved[submodel]
        self._deployment = replace(self._deployment, moved=moved)

    def surplus(self, device: str) -> tuple[str, ...]:
        """What a device holds of this bundle and should not have any more."""
        member = self._members.get(device)
        if member is None or member.link is None or member.hello is None:
            return ()
        held = [
            holding.submodel
            for generation in member.hello.generations
            if generation.manifest == self._digest
            for holding in generation.holdings
        ]
        return tuple(sorted({*held} - {*self._deployment.wanted(device)}))

    async def release(self, device: str) -> None:
        """Have a device let go of its surplus.

        Raises:
            DeviceError: the device refused.
            LinkError: it cannot be reached.
        """
        member, submodels = self._members[device], self.surplus(device)
        if submodels and member.link is not None:
            await release(member.link, self._bundle, submodels, device=member.name)
            member.refresh(await say_hello(member.link, device))

    async def _install(self, device: str, *more: str) -> None:
        """See to it that a connected device has what it should, and `more`."""
        member = self._members.get(device)
        if member is None or member.link is None or member.hello is None:
            raise LinkError(f"{member.name if member else device[:12]} is not connected", code="link.lost")
        wanted = (*self._deployment.wanted(device), *more)
        after = await ensure(member.link, member.hello, self._bundle, wanted, settles=not self._trial)
        await examine(member.link, after, self._bundle, wanted)
        member.refresh(after)
