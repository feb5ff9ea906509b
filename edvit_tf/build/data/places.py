"""Where what was fetched or decoded is kept."""

import os
from pathlib import Path


def cache_folder(name: str) -> Path:
    """A folder of ours in the user's cache; it may not exist yet."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "edvit-tf" / name
