"""Inputs that are nearly right, without end, and what a target must not do with them."""

import ctypes
import gc
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from edvit_tf.errors import EdvitError

# Takes an input and checks what comes of it; an EdvitError is a refusal, any other exception is a finding.
Target = Callable[[bytes], object]

# Of the processor, so that a busy machine is no finding.
LONGEST_SECONDS = 1.0
MOST_GROWTH_BYTES = 16 << 20
LONGEST_SENTENCE = 1000
# Caches are full and everything is imported after this part of the inputs.
WARM_UP = 0.2
_M_MMAP_THRESHOLD = -3
_INTERESTING = (
    b"\0",
    b"\xff",
    b"\x7f",
    b"\x80",
    b"\r\n",
    b"\x1b[31m",
    b"9" * 40,
    b'"',
    b"{",
    b"]",
    b"\xed\xa0\x80",
)


@dataclass(frozen=True, slots=True)
class Result:
    """What came of fuzzing: how many inputs were taken, how many refused, and what they cost."""

    inputs: int
    taken: int
    refused: int
    slowest_seconds: float
    growth_bytes: int


def fuzz(target: Target, corpus: Sequence[bytes], *, inputs: int, seed: int) -> Result:
    """Give a target so many inputs, each made from one or two of the corpus.

    Raises:
        AssertionError: it raised something else than EdvitError, took longer than `LONGEST_SECONDS`, or its
            process grew by more than `MOST_GROWTH_BYTES`; the input and the seed are named.
    """
    # A picture may claim millions of pixels: what the allocator kept of them would look like growth.
    ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 1 << 20)
    # A collection goes through all that a long run of tests has made, and that can take a second.
    gc.collect()
    gc.freeze()
    try:
        return _fuzz(target, corpus, inputs, seed)
    finally:
        gc.unfreeze()


def _fuzz(target: Target, corpus: Sequence[bytes], inputs: int, seed: int) -> Result:
    random = Random(seed)
    taken = refused = 0
    slowest, before = 0.0, 0
    for number in range(inputs):
        if number == int(inputs * WARM_UP):
            before = _resident()
        data = mutated(corpus, random) if number >= len(corpus) else corpus[number]
        start = time.process_time()
        try:
            target(data)
            taken += 1
        except EdvitError as error:
            refused += 1
            if not error.message.isprintable() or len(error.message) > LONGEST_SENTENCE:
                raise AssertionError(f"seed {seed}, input {number}, what it says: {data!r}") from error
        except Exception as error:
            raise AssertionError(f"seed {seed}, input {number}: {data!r}") from error
        seconds = time.process_time() - start
        slowest = max(slowest, seconds)
        assert seconds < LONGEST_SECONDS, (seed, number, seconds, data)
    growth = _resident() - before
    assert growth < MOST_GROWTH_BYTES, (seed, growth)
    return Result(inputs, taken, refused, slowest, growth)


def mutated(corpus: Sequence[bytes], random: Random) -> bytes:
    """One of the corpus with a few changes: bits, bytes, lengths, and pieces of itself or of another."""
    data = bytearray(random.choice(corpus))
    for _ in range(random.choice((1, 1, 1, 2, 4, 16))):
        place = random.randrange(len(data) + 1)
        length = random.choice((1, 1, 2, 4, 16, 256))
        match random.randrange(7):
            case 0 if data:
                data[place % len(data)] ^= 1 << random.randrange(8)
            case 1:
                del data[place : place + length]
            case 2:
                data[place:place] = random.randbytes(length)
            case 3:
                data[place : place + length] = random.randbytes(length)
            case 4:
                data[place:place] = random.choice(_INTERESTING)
            case 5:
                other = random.choice(corpus)
                begin = random.randrange(len(other) + 1)
                data[place:place] = other[begin : begin + length]
            case _:
                data[place : place + length] = data[place : place + length] * 2
    return bytes(data)


def _resident() -> int:
    """Bytes of memory that this process has now."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
