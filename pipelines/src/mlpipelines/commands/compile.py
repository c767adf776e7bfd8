"""`millrace compile`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mlpipelines.commands import options, screen

_EXAMPLES = """  millrace compile pipelines/projects/transactions
  millrace compile pipelines/projects/*                     all of them, after a change to the DAG
  millrace compile my-project --output /tmp/pipeline.yaml --image REGISTRY/steps@sha256:…"""


def main(argv: Sequence[str]) -> int:
    """Write pipeline.yaml beside its source."""
    parser = options.make_parser(
        "compile",
        "Compile projects to Kubeflow Pipelines YAML. The file is checked in beside its source: its diff is what changes on the cluster.",
        _EXAMPLES,
    )
    parser.add_argument("projects", nargs="+", type=Path, metavar="PROJECT_DIR")
    parser.add_argument("--output", type=Path, help="where to write, for a single project (default: PROJECT_DIR/pipeline.yaml)")
    parser.add_argument("--image", help="the steps image, by digest")
    arguments = parser.parse_args(argv)
    if arguments.output and len(arguments.projects) > 1:
        parser.error("--output goes with a single project")
    from mlpipelines.pipeline import Target, compile_pipeline
    from mlpipelines.project_file import load_project

    target = Target(image=arguments.image) if arguments.image else Target()
    for folder in arguments.projects:
        destination = arguments.output or folder / "pipeline.yaml"
        compile_pipeline(load_project(folder), folder, destination, target)
        screen.console().print(f"{destination}", soft_wrap=True)
    return 0
