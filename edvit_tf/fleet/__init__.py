"""What the aggregator runs: discover, deploy, dispatch, fuse.

    devices = await discover()
    deployment = await deploy(bundle, devices)
    async with Aggregator(bundle, deployment) as fleet:
        answer = await fleet.classify(image)

`edvit_tf.fleet.sync` has the same names without `await`.
"""

from edvit_tf.fleet.aggregator import Aggregator
from edvit_tf.fleet.answer import Answer, DeviceReply
from edvit_tf.fleet.deploy import Deployment, deploy
from edvit_tf.fleet.discover import Announced, at_address, discover
from edvit_tf.fleet.hello import DeviceStatus, State
from edvit_tf.fleet.member import Timing
from edvit_tf.fleet.survey import survey
from edvit_tf.fleet.transfer import Progress

__all__ = [
    "Aggregator",
    "Announced",
    "Answer",
    "Deployment",
    "DeviceReply",
    "DeviceStatus",
    "Progress",
    "State",
    "Timing",
    "at_address",
    "deploy",
    "discover",
    "survey",
]
