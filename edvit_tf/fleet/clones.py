"""A device's key in two processes at once: somebody has copied it, and nobody can tell which is the device.

Anyone can announce a known id, and only whoever holds its key gets through the handshake. A device also draws
a number when it starts (`instance`): one that is reached by two addresses says the same at both, a copy does
not.
"""

from collections.abc import Sequence

from edvit_tf.errors import DeviceError, EdvitError
from edvit_tf.fleet.discover import Announced
from edvit_tf.fleet.hello import say_hello
from edvit_tf.rpc.edvit_pb2 import HelloReply
from edvit_tf.rpc.link import Link
from edvit_tf.rpc.text import clean_text


def cloned(hello: HelloReply, addresses: Sequence[str]) -> DeviceError:
    """The error for a key that answers at all of `addresses`."""
    places = " and ".join(sorted(addresses))
    return DeviceError(
        f"the key of {clean_text(hello.name)} ({hello.id[:12]}) is used at {places} at once, so one is a "
        "copy: run `edvit-tf device leave --new-key` on the right one, and adopt it again",
        code="device.cloned",
    )


def refuse_clones(
    devices: Sequence[Announced], answers: Sequence[HelloReply | EdvitError]
) -> list[HelloReply | EdvitError]:
    """What `devices` answered at the same time, with `cloned` instead of each answer for a copied key."""
    said: dict[str, dict[bytes, list[str]]] = {}
    for device, answer in zip(devices, answers, strict=True):
        if isinstance(answer, HelloReply):
            said.setdefault(answer.id, {}).setdefault(answer.instance, []).append(device.address)

    def judged(answer: HelloReply | EdvitError) -> HelloReply | EdvitError:
        if isinstance(answer, EdvitError) or len(said[answer.id]) == 1:
            return answer
        return cloned(answer, [addresses[0] for addresses in said[answer.id].values()])

    return [judged(answer) for answer in answers]


async def is_another(link: Link, hello: HelloReply) -> bool:
    """Whether a process other than the one that said `hello` holds its key at the other end of `link`."""
    try:
        return (await say_hello(link, hello.id)).instance != hello.instance
    except EdvitError:
        return False  # an old address, or an impostor, which proves nothing
