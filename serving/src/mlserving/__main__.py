"""`python -m mlserving serve|gateway|fetch|monitor …`: what the images run, without the `millrace` command."""

import inspect
import sys
from collections.abc import Callable

from mlserving import commands
from mlserving.errors import ServingError

_COMMANDS: dict[str, Callable[[list[str]], int]] = {
    name.rstrip("_"): command for name, command in inspect.getmembers(commands, inspect.isfunction)
}


def main(argv: list[str]) -> int:
    """Run one of this package's commands. Exit codes as in `millrace --help`."""
    if not argv or argv[0] not in _COMMANDS:
        asked = argv[:1] in (["-h"], ["--help"])
        print(f"usage: python -m mlserving {'|'.join(_COMMANDS)} …", file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    try:
        return _COMMANDS[argv[0]](argv[1:])
    except ServingError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
