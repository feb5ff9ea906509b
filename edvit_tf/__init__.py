"""One Vision Transformer, too big for any device you own, running on several small ones."""

__version__ = "0.1.0"
