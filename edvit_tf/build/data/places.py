"""Where data sets are looked for, and where what was fetched, unpacked or decoded is kept."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_folder(name: str) -> Path:
    """A folder of ours in the user's cache; it may not exist yet."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "edvit-tf" / name


def given_folder() -> Path | None:
    """The folder that `EDVIT_DATA` names."""
    given = os.environ.get("EDVIT_DATA")
    return Path(given).expanduser() if given else None


@contextmanager
def folder_beside(target: Path) -> Iterator[Path]:
    """A temporary folder on the file system of `target`, so that a rename puts it in place at once."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as name:
        folder = Path(name) / target.name
        folder.mkdir()
        yield folder


def put(folder: Path, target: Path) -> None:
    """Rename a folder to where it belongs, unless another process was quicker: its copy is as good."""
    try:
        folder.rename(target)
    except OSError:
        if not target.is_dir():
            raise
