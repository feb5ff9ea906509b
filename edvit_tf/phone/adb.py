"""What adb says and does, with each of its failures as one sentence."""

import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edvit_tf.errors import PhoneError

_QUICK_SECONDS = 30.0  # the first call starts adb's server
_READY = "device"
_ADVICE = {
    "unauthorized": "unlock it, and allow this computer in the question that it shows",
    "offline": "unlock it, and plug it in again",
    "no permissions": "allow this user USB devices: 'sudo apt install android-sdk-platform-tools-common'",
    "recovery": "start it normally",
    "sideload": "start it normally",
    "bootloader": "start it normally",
}


@dataclass(frozen=True, slots=True)
class Phone:
    """A phone that adb sees; `state` is "device" when it can be used."""

    serial: str
    state: str
    model: str = ""

    @property
    def ready(self) -> bool:
        """Whether it can be used."""
        return self.state == _READY

    @property
    def advice(self) -> str:
        """What to do about a phone that cannot be used; empty for one that can."""
        return "" if self.ready else _ADVICE.get(self.state, "unplug it, and plug it in again")


@dataclass(frozen=True, slots=True)
class Said:
    """What a command on a phone said: both streams, and its exit status."""

    text: str
    errors: str
    status: int


class Adb:
    """The program adb.

    Raises:
        PhoneError: it is not installed (`phone.adb`).
    """

    def __init__(self) -> None:
        found = shutil.which("adb")
        if found is None:
            raise PhoneError(
                "adb is not installed: run 'sudo apt install adb', then plug in the phone.", code="phone.adb"
            )
        self._program = found

    def phones(self) -> list[Phone]:
        """All that it sees, whatever their state.

        Raises:
            PhoneError: adb does not work here (`phone.adb`).
        """
        done = self._call(["devices", "-l"], _QUICK_SECONDS)
        if done.status != 0:
            raise PhoneError(f"adb does not work here: {_last(done.errors)}.", code="phone.adb")
        lines = done.text.splitlines()
        header = next(
            (number for number, line in enumerate(lines) if line.startswith("List of devices")), len(lines)
        )
        return [_phone(line) for line in lines[header + 1 :] if line.strip()]

    def choose(self, serial: str | None) -> Phone:
        """The phone with that serial number; without one, the only one.

        Raises:
            PhoneError: there is none, there are several, or it cannot be used.
        """
        phones = self.phones()
        chosen = [phone for phone in phones if serial in (None, phone.serial)]
        if not chosen:
            what = f"no phone {serial!r} is" if serial else "no phone is"
            raise PhoneError(
                f"{what} connected: plug it in with USB debugging on, or see edvit-tf phone list.",
                code="phone.none",
            )
        usable = [phone for phone in chosen if phone.ready]
        if not usable:
            phone = chosen[0]
            raise PhoneError(
                f"{phone.serial} cannot be used ({phone.state}): {phone.advice}.", code="phone.state"
            )
        if len(usable) > 1:
            names = ", ".join(phone.serial for phone in usable)
            raise PhoneError(
                f"several phones are connected ({names}): name one with --phone.", code="phone.several"
            )
        return usable[0]

    def shell(self, phone: Phone, command: str, seconds: float = _QUICK_SECONDS) -> Said:
        """Run a line of shell on the phone.

        Raises:
            PhoneError: it took longer (`phone.time`).
        """
        return self._call(["-s", phone.serial, "shell", command], seconds)

    def push(self, phone: Phone, source: Path, target: str, seconds: float = 600.0) -> None:
        """Copy a file to a path on the phone, whose folders are made.

        Raises:
            PhoneError: it did not arrive (`phone.push`).
        """
        done = self._call(["-s", phone.serial, "push", str(source), target], seconds)
        if done.status != 0:
            raise PhoneError(
                f"{source.name} did not reach the phone: {_last(done.text + done.errors)}.", code="phone.push"
            )

    def install(self, phone: Phone, apk: Path, seconds: float = 300.0) -> None:
        """Install an app, or a newer version of it in place of the older, which keeps its data.

        Raises:
            PhoneError: the phone refused (`phone.install`).
        """
        done = self._call(["-s", phone.serial, "install", "-r", str(apk)], seconds)
        if done.status != 0 or "Success" not in done.text.splitlines():
            said = _last(done.text + done.errors)
            raise PhoneError(
                f"the phone refused {apk.name}: {said}{_why_refused(said)}", code="phone.install"
            )

    def lines(self, phone: Phone, command: Sequence[str]) -> Iterator[str]:
        """The lines that an adb command says, as they come, until it ends.

        Raises:
            PhoneError: it failed (`phone.state`).
        """
        words = [self._program, "-s", phone.serial, *command]
        # What it says of errors is a line among the others: two pipes would have to be read at once.
        pipe = subprocess.PIPE
        with subprocess.Popen(
            words, stdout=pipe, stderr=subprocess.STDOUT, text=True, errors="replace"
        ) as running:
            line = ""
            try:
                for line in running.stdout or ():
                    yield line.rstrip("\r\n")
            finally:
                running.terminate()
        if running.returncode > 0:
            raise PhoneError(f"the phone went away: {_last(line)}.", code="phone.state")

    def _call(self, words: Sequence[str], seconds: float) -> Said:
        try:
            done = subprocess.run(
                [self._program, *words],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise PhoneError(
                f"the phone gave no answer in {seconds:g} s: unlock it, or plug it in again.",
                code="phone.time",
            ) from error
        return Said(done.stdout, done.stderr, done.returncode)


def _phone(line: str) -> Phone:
    """One line of `adb devices -l`: serial number, state, then words with a colon in them."""
    serial, _, rest = line.strip().partition(" ")
    state = re.split(r"\s+(?=[a-z_]+:)|;|\s*\(", rest.strip())[0].strip()
    model = re.search(r"\bmodel:(\S+)", rest)
    return Phone(serial, state, model.group(1).replace("_", " ") if model else "")


def _last(text: str) -> str:
    """The last line that says something, without adb's own name before it."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return (
        lines[-1].removeprefix("adb: ").removeprefix("error: ").rstrip(".")
        if lines
        else "it does not say why"
    )


def _why_refused(said: str) -> str:
    advice = {
        "UPDATE_INCOMPATIBLE": "an app of another maker's key has its name, so remove that first",
        "VERSION_DOWNGRADE": "a newer version is installed, so remove that first",
        "USER_RESTRICTED": "allow the installation on the phone's screen",
        "INSUFFICIENT_STORAGE": "make room on it",
        "OLDER_SDK": "the app needs Android 10",
    }
    return next((f": {text}." for word, text in advice.items() if word in said), ".")
