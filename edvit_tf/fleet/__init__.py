"""What the aggregator runs: discover, deploy, dispatch, fuse.

    keys = load_keys(folder)
    bundle = signed(bundle, keys, folder)
    deployment = await deploy(bundle, await discover(), connect=with_keys(keys))
    async with Aggregator(bundle, deployment, connect=with_keys(keys)) as fleet:
        answer = await fleet.classify(image)

`edvit_tf.fleet.sync` has the same names without `await`.
"""

from edvit_tf.fleet.aggregator import Aggregator
from edvit_tf.fleet.answer import Answer, DeviceReply
from edvit_tf.fleet.connect import with_keys
from edvit_tf.fleet.deploy import Deployment, deploy
from edvit_tf.fleet.discover import Announced, at_address, discover
from edvit_tf.fleet.hello import DeviceStatus, State
from edvit_tf.fleet.keys import load_keys
from edvit_tf.fleet.member import Timing
from edvit_tf.fleet.signing import signed
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
    "load_keys",
    "signed",
    "survey",
    "with_keys",
]
