"""`python -m mlpipelines batch …`: what images run that have no `millrace` command: the steps', where Airflow starts it, and the trigger's."""

import sys

from mlpipelines import cli

_COMMANDS = {
    "batch": cli.batch,
    "compare": cli.compare,
    "compile": cli.compile_,
    "freeze": cli.freeze,
    "models": cli.models,
    "new": cli.new,
    "run": cli.run,
    "runs": cli.runs,
    "schedules": cli.schedules,
    "schema": cli.schema,
    "submit": cli.submit,
    "thaw": cli.thaw,
    "trigger": cli.trigger,
    "why": cli.why,
}


def main(argv: list[str]) -> int:
    """Run one of this package's commands. Exit codes as in `millrace --help`."""
    if not argv or argv[0] not in _COMMANDS:
        asked = argv[:1] in (["-h"], ["--help"])
        print(f"usage: python -m mlpipelines {'|'.join(_COMMANDS)} …", file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    try:
        return _COMMANDS[argv[0]](argv[1:])
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        code = getattr(error, "exit_code", None)  # ours, or serving's, whose errors have no ancestor in common with ours
        if not isinstance(code, int):
            raise
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return code


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
