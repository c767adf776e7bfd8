"""The `millrace` command: finds the sub-commands that the installed packages offer and runs the one that was asked for.

A package adds a command by an entry point in its pyproject.toml:

    [project.entry-points."millrace.commands"]
    serve = "mlserving.commands:serve"

where `serve` is a function `(argv: list[str]) -> int`: it gets what stands after its name on the command line, parses it
(argparse with `prog="millrace serve"`, a description, examples) and returns the exit code. The first line of its docstring is
its line in `millrace --help`. That help loads every command's module, so such a module imports nothing heavy at its top.

An error that was foreseen is an exception with an `exit_code`: its text is printed without a traceback. This module
imports none of the packages, so it goes by that attribute. Anything else that escapes is a bug and keeps its traceback.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, entry_points, version

Command = Callable[[list[str]], int]

INTERRUPTED = 130
USAGE = 2

_GROUPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Projects", ("new", "schema")),
    ("Pipeline", ("run", "compile", "submit")),
    ("Results", ("runs", "compare", "models")),
    ("Retraining", ("trigger", "schedules", "why", "freeze", "thaw")),
    ("Serving", ("serve", "predict", "gateway", "rollout", "audit")),
    ("Predictions", ("batch", "labels", "predictions", "monitor", "review")),
    ("Platform", ("images", "platform")),
)
_OTHER = "More"

_HEAD = """\
usage: millrace COMMAND [ARGUMENT …]

Trains models in gated pipelines and serves the ones that passed."""

_FOOT = """\
Exit codes
  0    done
  1    a bug in Millrace; the traceback says where
  2    a file, an option or a request is wrong; nothing was done
  3    rejected: the data or the model did not pass; read the report
  4    something outside (disk, database, server) did not answer; try again
  5    conflict: somebody else is at it, or it is there already
  130  interrupted (Ctrl-C); the next run resumes or starts clean

`millrace COMMAND --help` explains one command. `millrace --version` prints the version."""


def main(argv: list[str] | None = None) -> int:
    """Run the command that `argv` (by default the process's arguments) names, and return the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    try:
        return _dispatch(arguments)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        code = getattr(error, "exit_code", None)
        if not isinstance(code, int):
            raise
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return code


def _dispatch(arguments: list[str]) -> int:
    match arguments:
        case [] | ["-h" | "--help"] | ["help"]:
            print(_overview())
            return 0
        case ["-V" | "--version"]:
            print(f"millrace {version('mlplatform')}")
            return 0
        case ["help", name, *_]:
            return _run(name, ["--help"])
        case [name, *rest]:
            return _run(name, rest)
    return USAGE


def _run(name: str, rest: list[str]) -> int:
    commands = _commands()
    if name not in commands:
        print(_unknown(name, list(commands)), file=sys.stderr)
        return USAGE
    command: Command = commands[name].load()
    return command(rest)


def _commands() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in sorted(entry_points(group="millrace.commands"), key=lambda entry: entry.name)}


def _overview() -> str:
    summaries = {name: _summary(entry) for name, entry in _commands().items()}
    width = max(map(len, summaries), default=0)
    sections = [
        "\n".join([title, *(f"  {name:<{width}}  {summaries[name]}" for name in names)]) for title, names in _grouped(list(summaries))
    ]
    return "\n\n".join([_HEAD, *sections, _FOOT])


def _grouped(names: list[str]) -> Iterator[tuple[str, list[str]]]:
    """The commands under their headings, in the order in which one meets them; what no heading names comes last."""
    placed = {name for _, members in _GROUPS for name in members}
    for title, members in (*_GROUPS, (_OTHER, tuple(name for name in names if name not in placed))):
        present = [name for name in members if name in names]
        if present:
            yield title, present


def _summary(entry: EntryPoint) -> str:
    try:
        return (entry.load().__doc__ or "").strip().partition("\n")[0]
    except (ImportError, AttributeError) as error:
        return f"(cannot be loaded: {error})"


def _unknown(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=3)
    hint = f"Did you mean {' or '.join(repr(match) for match in close)}? " if close else ""
    return f"millrace: there is no command {name!r}. {hint}Type `millrace --help` to see all."
