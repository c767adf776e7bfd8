"""The `gpuq` command: finds the question among the modules here, asks it, and turns failures into exit codes.

0: answered. 2: the question is wrong. 3: the cluster says no, or something is to be mended (`doctor`). 4: it does not answer.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence

from gpuqueue.commands import doctor, eta, export, planning, queue, reading, usage, why
from gpuqueue.commands.screen import complain
from gpuqueue.errors import GpuQueueError
from gpuqueue.history import Past
from gpuqueue.simulate import Policy


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one sub-command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="gpuq", description="Who has the GPUs, who waits for them, why, and for how long.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in (why, queue, eta, usage, doctor, export):
        module.add_parser(commands)
    planning.add_parsers(commands, _recorded)
    options = parser.parse_args(arguments)
    try:
        if "run" in options:
            code: int = options.run(options)
            return code
        return asyncio.run(_ask(options))
    except GpuQueueError as error:
        complain(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def _recorded(options: argparse.Namespace) -> tuple[Sequence[Past], Sequence[Policy]]:
    """What has run on the cluster, and its queues as they are now."""

    async def read() -> tuple[Sequence[Past], Sequence[Policy]]:
        async with reading.reaching(options) as api:
            seen = await reading.look(api, options)
            return seen.pasts, [policy.replayed(time.time()) for policy in seen.view.policies.values()]

    return asyncio.run(read())


async def _ask(options: argparse.Namespace) -> int:
    async with reading.reaching(options) as api:
        code: int = await options.question(api, options)
        return code


if __name__ == "__main__":
    sys.exit(main())
