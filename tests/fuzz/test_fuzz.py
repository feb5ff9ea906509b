"""Five thousand inputs for each thing that a stranger can say; a hundred thousand where minutes do not count.

A finding names its seed and input. `-rP` shows what each run came to.
"""

import gc
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from tests.fuzz import targets
from tests.fuzz.http_target import http_pictures
from tests.fuzz.mutate import fuzz, mutated
from tests.fuzz.targets import Fuzzed

pytestmark = pytest.mark.fault

Making = Callable[[Path, pytest.MonkeyPatch], Fuzzed]
TARGETS: dict[str, Making] = {
    "manifest": lambda _folder, _patch: targets.manifest_reader(),
    "discovery": lambda _folder, _patch: targets.discovery_records(),
    "certificates": lambda _folder, _patch: targets.certificates(),
    "pairing requests": targets.pairing_requests,
    "pairing replies": targets.pairing_replies,
    "frames of a device": lambda _folder, _patch: targets.frames_of_a_device(),
    "wire pictures": lambda _folder, _patch: targets.wire_pictures(),
    "HTTP pictures": lambda _folder, _patch: http_pictures(),
}
LONG = pytest.param(100_000, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])


@pytest.mark.parametrize("inputs", [5_000, LONG])
@pytest.mark.parametrize("name", TARGETS)
def test_nothing_that_a_stranger_says_crashes_hangs_or_grows(
    name: str, inputs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = TARGETS[name](tmp_path, monkeypatch)
    try:
        result = fuzz(made.target, made.corpus, inputs=inputs, seed=inputs)
    finally:
        made.close()
    print(name, result)  # noqa: T201
    assert result.refused > inputs // 20, "most inputs should be wrong"


def test_a_finding_is_named_with_its_seed() -> None:
    def fragile(data: bytes) -> None:
        if data != b"right":
            raise ZeroDivisionError

    with pytest.raises(AssertionError, match="seed 7, input 1: b'"):
        fuzz(fragile, [b"right"], inputs=100, seed=7)


def test_growth_is_found() -> None:
    kept: list[bytes] = []
    with pytest.raises(AssertionError):
        fuzz(lambda data: kept.append(data * 50_000), [b"some"], inputs=2000, seed=7)


def test_inputs_can_be_made_again() -> None:
    def some(seed: int) -> list[bytes]:
        random = Random(seed)
        return [mutated([b"abc", b"defg"], random) for _ in range(100)]

    assert some(3) == some(3)
    assert some(3) != some(4)
    assert len(set(some(3))) > 80


def test_what_was_there_before_costs_no_input_a_collection() -> None:
    frozen: list[int] = []
    fuzz(lambda _: frozen.append(gc.get_freeze_count()), [b"some"], inputs=3, seed=7)
    assert min(frozen) > 10_000
    assert gc.get_freeze_count() == 0
