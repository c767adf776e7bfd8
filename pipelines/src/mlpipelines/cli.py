"""What this package adds to the `millrace` command: one function for each entry point.

`millrace --help` loads this module, so each command's own module is imported only when the command is chosen.
"""

from __future__ import annotations


def batch(argv: list[str]) -> int:
    """Score Parquet files with the champion, each exactly once"""
    from mlpipelines.commands.batch import main

    return main(argv)


def new(argv: list[str]) -> int:
    """Write a new project that runs at once"""
    from mlpipelines.commands.new import main

    return main(argv)


def run(argv: list[str]) -> int:
    """Run a project's pipeline on this machine: raw rows to a gated, published model"""
    from mlpipelines.commands.run import main

    return main(argv)


def schema(argv: list[str]) -> int:
    """Show, compare or accept the reviewed schema of a project"""
    from mlpipelines.commands.schema import main

    return main(argv)


def compile_(argv: list[str]) -> int:
    """Compile projects to Kubeflow Pipelines YAML"""
    from mlpipelines.commands.compile import main

    return main(argv)


def submit(argv: list[str]) -> int:
    """Start a run of a project on a Kubeflow Pipelines installation"""
    from mlpipelines.commands.submit import main

    return main(argv)


def runs(argv: list[str]) -> int:
    """List runs, or show one step by step"""
    from mlpipelines.commands.runs import main

    return main(argv)


def compare(argv: list[str]) -> int:
    """Set runs side by side: data, parameters, metrics, time, memory"""
    from mlpipelines.commands.compare import main

    return main(argv)


def models(argv: list[str]) -> int:
    """List registered models, or the versions of one"""
    from mlpipelines.commands.models import main

    return main(argv)
