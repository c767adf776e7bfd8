"""The `gpuq` command: finds the question among the modules here, asks it, and turns failures into exit codes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from gpuqueue.controller import main as controller


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one sub-command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="gpuq", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    controller.add_parser(commands)
    options = parser.parse_args(arguments)
    code: int = options.run(options)
    return code


if __name__ == "__main__":
    sys.exit(main())
