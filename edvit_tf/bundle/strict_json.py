"""JSON from a stranger: bounded in size and depth, no key twice, no number that is not one."""

import json
import re
from collections import Counter
from typing import Any, NoReturn

from edvit_tf.bundle.refusal import quote, refused

LARGEST_BYTES = 4 * 1024 * 1024
LARGEST_DEPTH = 32


def load(data: bytes) -> Any:
    """What the bytes of a `manifest.json` hold.

    Raises:
        BundleError: `bundle.limit` (too large or too deep) or `bundle.json` (not UTF-8, not JSON, a key
            twice, NaN or Infinity, half a surrogate pair).
    """
    if len(data) > LARGEST_BYTES:
        raise refused("limit", f"manifest.json has {len(data)} bytes and at most {LARGEST_BYTES} are read")
    _check_depth(data)
    try:
        document = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_float=_finite,
        )
        # Half a surrogate pair is legal JSON, but no text that could be written again: this finds it.
        json.dumps(document, ensure_ascii=False).encode("utf-8")
    except ValueError as error:  # UnicodeError and JSONDecodeError are among them
        problem = ascii(str(error))[1:-1][:200]
        raise refused("json", f"manifest.json is not valid JSON ({problem})") from None
    return document


# A string, closed or not, is one token: brackets inside it do not count, and the scan stays linear.
_TOKENS = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)


def _check_depth(data: bytes) -> None:
    depth = 0
    for token in _TOKENS.finditer(data):
        first = data[token.start()]
        depth += (first in b"[{") - (first in b"]}")
        if depth > LARGEST_DEPTH:
            raise refused("limit", f"manifest.json is nested more than {LARGEST_DEPTH} deep")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    document = dict(pairs)
    if len(document) < len(pairs):
        (twice, _count), *_ = Counter(key for key, _value in pairs).most_common(1)
        raise ValueError(f"the key {quote(twice)} appears twice in one object")
    return document


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number")


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"the number {text[:40]} is too large")
    return number
