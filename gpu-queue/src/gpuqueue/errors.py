"""What goes wrong, named for what the reader can do."""

from __future__ import annotations


class ConfigError(Exception):
    """Fix the file or the flag that the text names."""


class Unavailable(Exception):
    """What we asked does not answer as it should; try again later."""
