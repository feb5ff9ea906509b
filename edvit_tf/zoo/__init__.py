"""The teachers that ship with the package, each a safetensors file with a model card (`<name>.md`)."""

from pathlib import Path

from edvit_tf.errors import ModelError

_FOLDER = Path(__file__).parent


def names() -> tuple[str, ...]:
    """The teachers that ship, sorted."""
    return tuple(sorted(file.stem for file in _FOLDER.glob("*.safetensors")))


def path(name: str) -> Path:
    """The checkpoint file of a teacher.

    Raises:
        ModelError: no teacher of that name ships.
    """
    file = _FOLDER / f"{name}.safetensors"
    if name not in names():
        raise ModelError(
            f"No trained {name} ships with edvit-tf (there is {', '.join(names()) or 'none'}): make one with "
            f"'edvit-tf train --preset {name}' and give its file"
        )
    return file
