"""Whether the interpreter a device names in Hello is among those a variant names in the manifest."""

import re
from collections.abc import Mapping

_NUMBERS = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9}){0,3}")


def accepts(runtimes: Mapping[str, str], runtime: str) -> bool:
    """Tell whether `runtime` ("ai-edge-litert/2.3.0") is in `runtimes` ({name: minimum version}).

    Of a version only the leading numbers count; one that has none is never accepted.
    """
    name, _, version = runtime.partition("/")
    minimum = runtimes.get(name)
    return minimum is not None and _NUMBERS.match(version) is not None and _order(version) >= _order(minimum)


def _order(version: str) -> tuple[int, ...]:
    match = _NUMBERS.match(version)
    numbers = [int(part) for part in match.group().split(".")] if match else []
    return tuple(numbers + [0] * (4 - len(numbers)))
