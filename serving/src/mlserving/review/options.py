"""What the verbs of `millrace review` have in common: where things lie, and what a number may be."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from mlserving.workspace import named_store, named_workspace


def places() -> argparse.ArgumentParser:
    """Options that say where the queue, the log and the users lie: a parent of each verb's parser."""
    where = argparse.ArgumentParser(add_help=False)
    where.add_argument("--workspace", type=Path, metavar="DIR", help="default: MILLRACE_WORKSPACE, else .millrace")
    where.add_argument("--predictions", type=Path, metavar="DIR", help="log and labels (default: the workspace's)")
    where.add_argument("--users", type=Path, metavar="FILE", help="who may sign in (default: serving/review-users.json in the workspace)")
    return where


def workspace_of(arguments: argparse.Namespace) -> Path:
    """The workspace."""
    return named_workspace(arguments.workspace)


def predictions_of(arguments: argparse.Namespace) -> Path:
    """The folder of log and labels."""
    return Path(arguments.predictions or workspace_of(arguments) / "predictions")


def users_of(arguments: argparse.Namespace) -> Path:
    """The users' file."""
    return Path(arguments.users or workspace_of(arguments) / "serving" / "review-users.json")


def models_of(arguments: argparse.Namespace) -> Path:
    """The model store."""
    return named_store(arguments.store, arguments.workspace)


def at_least(least: int) -> Callable[[str], int]:
    """Reads a whole number that is not smaller."""

    def number(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{text} is below {least}")
        return value

    return number


def share(text: str) -> float:
    """Reads a number from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is no share: from 0 to 1")
    return value


def moment(text: str) -> datetime:
    """Reads a moment, in UTC where it names no zone."""
    value = datetime.fromisoformat(text)
    return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
