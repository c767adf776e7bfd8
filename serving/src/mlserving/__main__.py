"""`python -m mlserving serve|predict …`: what the images run, without the `millrace` command."""

import sys

from mlserving.commands import compact, labels, predict, predictions, record, serve
from mlserving.errors import ServingError

_COMMANDS = {"predict": predict, "serve": serve}
_COMMANDS |= {"record": record, "compact": compact, "labels": labels, "predictions": predictions}


def main(argv: list[str]) -> int:
    """Run one of this package's commands. Exit codes as in `millrace --help`."""
    if not argv or argv[0] not in _COMMANDS:
        print(f"usage: python -m mlserving {'|'.join(_COMMANDS)} …", file=sys.stderr)
        return 2
    try:
        return _COMMANDS[argv[0]](argv[1:])
    except ServingError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
