"""What others build on: the names, and that the plain wrapper keeps up with the asynchronous one."""

import inspect

import edvit_tf.fleet as fleet
from edvit_tf.fleet import sync


def test_the_public_names_are_these() -> None:
    assert set(fleet.__all__) == {
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
    }
    assert all(hasattr(fleet, name) for name in fleet.__all__)


def test_the_plain_wrapper_has_every_method() -> None:
    def methods(kind: type) -> dict[str, list[str]]:
        return {
            name: list(inspect.signature(method).parameters)
            for name, method in inspect.getmembers(kind, inspect.isfunction)
            if not name.startswith("_")
        }

    # Only `serve`, which is asynchronous, puts one aggregator in another's place while pictures come in.
    assert methods(sync.Aggregator) | {"held": ["self"]} == methods(fleet.Aggregator)
