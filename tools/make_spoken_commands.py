"""Make a data set of spoken commands offline, in the layout of Speech Commands (Warden, arXiv 1804.03209).

    python tools/make_spoken_commands.py build/spoken

espeak-ng says each word in many voices: an accent and a variant make a speaker, and each clip has a pitch, a
speed, a level, a place in its second, and noise of its own. A speaker is in one part only, so that what is
measured is how well a model hears somebody it has never heard. The same seed and version of espeak-ng give
the same files.
"""

import argparse
import itertools
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edvit_tf.bundle.sound import read_sound
from edvit_tf.errors import DataError, EdvitError, MissingPackage, UsageError

WORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
ACCENTS = ("en-gb", "en-us", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbcwmd", "en-gb-x-gbclan", "en-029")
VARIANTS = tuple(f"m{number}" for number in range(1, 9)) + tuple(f"f{number}" for number in range(1, 6))
SPEAKERS = tuple(f"{accent}+{variant}" for accent, variant in itertools.product(ACCENTS, VARIANTS))
HELD_OUT = 0.15  # of the speakers, for validation and for the test each
RATE = 16_000
PITCH, SPEED = (20, 80), (120, 210)  # espeak-ng's scale of 0 to 99, and words a minute
LEVEL_DB, NOISE_DB = (-30.0, -12.0), (0.0, 20.0)  # of the speech, and how much louder it is than its noise
COLOURS = (0.0, 0.5, 1.0)  # noise whose power falls with the frequency to the power of twice this

Samples = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Clip:
    """One file: who says which word, for which time, and from what its random choices are drawn."""

    word: str
    speaker: str
    number: int
    seed: tuple[int, ...]

    @property
    def file(self) -> str:
        """Its path in the data set; before `_nohash_` stands the speaker, as in Speech Commands."""
        return f"{self.word}/{self.speaker.replace('+', '-')}_nohash_{self.number}.wav"


def make(out: Path, words: Sequence[str], speakers: int, each: int, seed: int) -> int:
    """Write the data set, whole or not at all.

    Args:
        out: the folder; nothing may be there.
        words: the classes.
        speakers: how many of `SPEAKERS`, drawn from the seed.
        each: clips of each word by each speaker.
        seed: decides every random choice.

    Returns:
        How many clips there are.

    Raises:
        MissingPackage: espeak-ng is not installed.
        UsageError: something is at `out`, or the numbers make no data set.
        DataError: espeak-ng fails.
    """
    if shutil.which("espeak-ng") is None:
        raise MissingPackage("espeak-ng is not installed: sudo apt install espeak-ng")
    if out.exists():
        raise UsageError(f"{out} exists already: choose another folder, or move it away")
    if len(set(words)) < 2 or not all(word.isalpha() for word in words):
        raise UsageError("the words must be two or more different ones, each of letters alone")
    if not 4 <= speakers <= len(SPEAKERS) or each < 1:
        raise UsageError(f"give 4 to {len(SPEAKERS)} speakers and at least one clip of each word by each")
    order = np.random.default_rng(seed).permutation(len(SPEAKERS))[:speakers]
    held = max(1, round(speakers * HELD_OUT))
    clips = [
        Clip(word, SPEAKERS[speaker], number, (seed, int(speaker), index, number))
        for speaker in order
        for index, word in enumerate(words)
        for number in range(each)
    ]
    parts = {
        "testing_list.txt": {SPEAKERS[speaker] for speaker in order[:held]},
        "validation_list.txt": {SPEAKERS[speaker] for speaker in order[held : 2 * held]},
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as temporary:
        folder = Path(temporary) / out.name
        for word in (*words, "_background_noise_"):
            (folder / word).mkdir(parents=True)
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda clip: write(folder / clip.file, record(clip)), clips))
        for index, colour in enumerate(COLOURS):
            generator = np.random.default_rng([seed, index])
            samples = 0.1 * noise(10 * RATE, colour, generator)
            write(folder / "_background_noise_" / f"noise_{colour:g}.wav", samples)
        for name, chosen in parts.items():
            lines = sorted(clip.file for clip in clips if clip.speaker in chosen)
            (folder / name).write_text("\n".join(lines) + "\n")
        folder.chmod(0o755)
        folder.rename(out)
    return len(clips)


def record(clip: Clip) -> Samples:
    """One second of a word with noise: float64 [16000], full scale is ±1."""
    generator = np.random.default_rng(clip.seed)
    speech = say(clip.word, clip.speaker, int(generator.integers(*PITCH)), int(generator.integers(*SPEED)))
    level = 10 ** (generator.uniform(*LEVEL_DB) / 20)
    speech *= level / np.sqrt(np.mean(speech**2))
    start = int(generator.integers(RATE - len(speech) + 1)) if len(speech) < RATE else 0
    second = np.zeros(RATE)
    second[start : start + len(speech)] = speech[:RATE]
    behind = noise(RATE, generator.choice(COLOURS), generator)
    return second + behind * level / 10 ** (generator.uniform(*NOISE_DB) / 20)


def say(word: str, speaker: str, pitch: int, speed: int) -> Samples:
    """A word from espeak-ng without the silence around it: float64 at 16 kHz.

    Raises:
        DataError: it fails, or is silent.
    """
    with tempfile.TemporaryDirectory(prefix="edvit-tf-") as temporary:
        path = Path(temporary) / "word.wav"
        command = ["espeak-ng", "-v", speaker, "-p", str(pitch), "-s", str(speed), "-w", str(path), word]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode or not path.is_file():
            raise DataError(f"espeak-ng cannot say {word} as {speaker}: {' '.join(done.stderr.split())}")
        samples = read_sound(path, RATE)
    loud = np.flatnonzero(np.abs(samples) > 0.02 * np.abs(samples).max())
    if len(loud) == 0:
        raise DataError(f"espeak-ng says nothing for {word} as {speaker}: is its package complete?")
    spoken: Samples = samples[loud[0] : loud[-1] + 1].copy()
    return spoken


def noise(length: int, colour: float, generator: np.random.Generator) -> Samples:
    """Noise of mean square 1: white for colour 0, pink for 0.5, brown for 1."""
    spectrum = np.fft.rfft(generator.standard_normal(length))
    spectrum /= np.maximum(np.arange(len(spectrum)), 1) ** colour
    samples = np.fft.irfft(spectrum, length)
    samples /= np.sqrt(np.mean(samples**2))
    return samples


def write(path: Path, samples: Samples) -> None:
    """Write samples as 16-bit WAV; what is beyond full scale is cut off."""
    import soundfile

    soundfile.write(path, np.clip(samples, -1, 1), RATE, subtype="PCM_16")


def main() -> int:
    """Parse the arguments, make the data set, and turn an error into one sentence."""
    parser = argparse.ArgumentParser(description="Make a data set of spoken commands with espeak-ng.")
    parser.add_argument("out", type=Path, help="the folder to write; nothing may be there")
    parser.add_argument("--words", nargs="+", default=list(WORDS), help="the classes")
    parser.add_argument("--speakers", type=int, default=len(SPEAKERS), help=f"of {len(SPEAKERS)} there are")
    parser.add_argument("--each", type=int, default=5, help="clips of each word by each speaker")
    parser.add_argument("--seed", type=int, default=1, help="decides every random choice")
    given = parser.parse_args()
    try:
        clips = make(given.out, given.words, given.speakers, given.each, given.seed)
    except EdvitError as error:
        print(f"make_spoken_commands: {error.message}", file=sys.stderr)
        return error.exit_status
    print(f"{clips} clips of {len(given.words)} words in {given.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
