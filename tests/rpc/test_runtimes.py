"""Which interpreter may run a variant."""

import pytest

from edvit_tf.rpc.runtimes import accepts

RUNTIMES = {"ai-edge-litert": "2.3", "tflite-runtime": "2.14.0"}


@pytest.mark.parametrize(
    ("runtime", "accepted"),
    [
        ("ai-edge-litert/2.3.0", True),
        ("ai-edge-litert/2.3", True),
        ("ai-edge-litert/2.10.1", True),
        ("ai-edge-litert/3.0.0rc1", True),
        ("ai-edge-litert/2.2.9", False),
        ("tflite-runtime/2.14.0", True),
        ("tflite-runtime/2.9.0", False),
        ("other/9.9", False),
        ("ai-edge-litert", False),
        ("ai-edge-litert/new", False),
        ("", False),
    ],
)
def test_name_and_minimum_version_decide(runtime: str, accepted: bool) -> None:
    assert accepts(RUNTIMES, runtime) is accepted
