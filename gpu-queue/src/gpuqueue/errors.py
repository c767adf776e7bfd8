"""Failures that a person can do something about. A text ends with the next command to type."""

from __future__ import annotations


class ConfigError(Exception):
    """A file or an argument is wrong: fix it and run again."""

    exit_code = 2
