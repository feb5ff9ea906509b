"""Text that came from elsewhere, made fit to be shown."""

import re

LONGEST_REASON = 500
_CODE = re.compile(r"[a-z]{1,16}(?:[._][a-z]{1,16}){0,3}")


def clean_text(text: str | None, *, longest: int = 64) -> str:
    """Make foreign text fit to be shown: printable characters only (no terminal codes), at most `longest`."""
    return "".join(character for character in text or "" if character.isprintable())[:longest]


def clean_code(code: str, otherwise: str) -> str:
    """A code for programs, such as "device.memory", when it looks like one."""
    return code if _CODE.fullmatch(code) else otherwise
