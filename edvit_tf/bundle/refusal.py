"""How a bundle is refused: one sentence that says what is wrong and what to do, and one code a cause."""

from edvit_tf.errors import BundleError

REPAIR = "make the bundle again with edvit-tf export, or fetch it again"


def refused(cause: str, problem: str, remedy: str = REPAIR) -> BundleError:
    """The error with the code `bundle.<cause>`."""
    return BundleError(f"{problem}: {remedy}.", code=f"bundle.{cause}")


def quote(value: object) -> str:
    """A foreign value, short enough for a sentence and with nothing in it that a terminal would obey."""
    text = ascii(value)
    return text if len(text) <= 80 else text[:77] + "..."
