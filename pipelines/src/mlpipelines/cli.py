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


def features(argv: list[str]) -> int:
    """Write a feature contract's rows and definitions for Feast"""
    from mlpipelines.commands.features import main

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


def rollout(argv: list[str]) -> int:
    """Move a model's requests to another version step by step, and back in seconds"""
    from mlpipelines.commands.rollout import main

    return main(argv)


def trigger(argv: list[str]) -> int:
    """Take alerts, follow schedules, and start trainings, each reason once"""
    from mlpipelines.commands.trigger import main

    return main(argv)


def why(argv: list[str]) -> int:
    """Tell why a model was trained again, or was not"""
    from mlpipelines.commands.why import main

    return main(argv)


def freeze(argv: list[str]) -> int:
    """Start no training of a model for now"""
    from mlpipelines.commands.freeze import freeze as main

    return main(argv)


def thaw(argv: list[str]) -> int:
    """Let a frozen model be trained again"""
    from mlpipelines.commands.freeze import thaw as main

    return main(argv)


def schedules(argv: list[str]) -> int:
    """Show when a project's schedule fires next"""
    from mlpipelines.commands.schedules import main

    return main(argv)
