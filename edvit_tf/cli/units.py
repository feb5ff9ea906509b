"""systemd units: `device run` and `serve` as services that start with the machine and come back."""

import getpass
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from edvit_tf.cli.output import emit, say, show
from edvit_tf.errors import EdvitError, UsageError

UserOption = Annotated[
    str | None,
    typer.Option("--user", help="As whom a system service runs (default: you, or a service of your own)."),
]
UnitFolderOption = Annotated[
    Path | None, typer.Option("--unit-folder", help="Where to write it (default: where systemd looks).")
]

SYSTEM_UNITS = Path("/etc/systemd/system")
# A process that says nothing for so long is started again; it says something twice as often.
WATCHDOG_SECONDS = 30
# One that cannot start, for want of a disk or of memory, is tried for ever, and not all the time.
RESTART_SECONDS = 3

_HARDENING = """\
ProtectSystem=strict
ProtectHome=read-only
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectControlGroups=yes
PrivateTmp=yes
RestrictNamespaces=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
CapabilityBoundingSet=
"""


@dataclass(frozen=True, slots=True)
class Service:
    """A verb of ours as a service.

    `arguments` follow `edvit-tf`; `folder` is where it writes; it may take `stop_seconds` to end. A system
    service runs as `user`; without one it is a user's own.
    """

    name: str
    description: str
    arguments: tuple[str, ...]
    folder: Path
    stop_seconds: int
    user: str = ""

    def unit(self) -> str:
        """The unit file."""
        command = [sys.executable, "-m", "edvit_tf.cli.main", *self.arguments]
        system = (
            f"User={self.user}\n{_HARDENING}ReadWritePaths={_word(str(self.folder))}\n" if self.user else ""
        )
        return (
            "[Unit]\n"
            f"Description={self.description}\n"
            + ("Wants=network-online.target\nAfter=network-online.target\n" if self.user else "")
            + "StartLimitIntervalSec=0\n"
            "\n"
            "[Service]\n"
            "Type=notify\n"
            "NotifyAccess=main\n"
            f"ExecStart={' '.join(map(_word, command))}\n"
            f"EnvironmentFile=-{_path(self.folder / (self.name + '.env'))}\n"
            "Restart=always\n"
            f"RestartSec={RESTART_SECONDS}\n"
            f"WatchdogSec={WATCHDOG_SECONDS}\n"
            f"TimeoutStopSec={self.stop_seconds}\n"
            "UMask=0077\n"
            "NoNewPrivileges=yes\n"
            f"{system}"
            "\n"
            "[Install]\n"
            f"WantedBy={'multi-user' if self.user else 'default'}.target\n"
        )


def install(service: Service, folder: Path | None, *, json: bool) -> None:
    """Write the unit of a service, have systemd check it, and say what to do next.

    Args:
        service: which; its `user` decides what kind of unit it is.
        folder: where to write it instead of where systemd looks.
        json: print an object instead.

    Raises:
        EdvitError: `unit.write`: it cannot be written; `unit.wrong`: systemd refuses it.
    """
    where = folder or (SYSTEM_UNITS if service.user else _user_units())
    path = where / f"{service.name}.service"
    try:
        where.mkdir(parents=True, exist_ok=True)
        service.folder.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".part")
        temporary.write_text(service.unit())
        temporary.rename(path)
    except OSError as error:
        raise EdvitError(
            f"cannot write {path} ({error.strerror}): name another --unit-folder", code="unit.write"
        ) from error
    checked = _verify(path, user=not service.user)
    if json:
        emit({"unit": path, "checked": checked})
        return
    control = "systemctl" if service.user else "systemctl --user"
    show(f"{path} is written" + ("" if checked else "; there is no systemd-analyze here to check it"))
    show(f"Next: {control} daemon-reload && {control} enable --now {service.name}")
    if not service.user:
        say(f"It starts with the machine after: loginctl enable-linger {getpass.getuser()}")


def user_of_system_service(asked: str | None) -> str:
    """Who a service runs as: empty for a unit of the user's own, which is what those get who are not root.

    Raises:
        UsageError: root has not said who.
    """
    if asked:
        if not re.fullmatch(r"[a-z_][a-z0-9_-]{0,31}", asked):
            raise UsageError(f"--user must be the name of a user of this machine, not {asked!r}")
        return asked
    if os.geteuid() != 0:
        return ""
    if sudo := os.environ.get("SUDO_USER"):
        return sudo
    raise UsageError("say with --user as whom the service is to run: it needs no rights of root")


def _verify(path: Path, *, user: bool) -> bool:
    """Have systemd check a unit; whether it could."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        return False
    command = [analyze, "verify", *(["--user"] if user else []), "--man=no", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    # It speaks of other units, too, and of a machine that systemd does not run on.
    wrong = [line for line in done.stderr.splitlines() if path.name in line]
    if wrong:
        raise EdvitError(f"systemd refuses {path}: {wrong[0]}", code="unit.wrong")
    return True


def _user_units() -> Path:
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "systemd" / "user"


def options(given: Sequence[tuple[str, object]]) -> tuple[str, ...]:
    """Options as words, without those that have no value."""
    return tuple(word for name, value in given if value not in (None, "") for word in (name, str(value)))


def _word(text: str) -> str:
    """A word of a command line as systemd reads it back."""
    if any(ord(character) < 32 for character in text):
        raise UsageError(f"{text!r} cannot stand in a unit file: leave out what does not print")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"'


def _path(path: Path) -> str:
    """A path where systemd takes no quotes."""
    return str(path.absolute()).replace("%", "%%")
