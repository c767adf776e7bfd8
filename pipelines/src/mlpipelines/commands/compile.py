"""`millrace compile`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mlpipelines.commands import options, screen

_EXAMPLES = """  millrace compile pipelines/projects/transactions
  millrace compile pipelines/projects/*                     all of them, after a change to the DAG
  millrace compile my-project --output /tmp/pipeline.yaml --image REGISTRY/steps@sha256:…
  millrace compile my-project --output /tmp/batch.yaml --pipeline batch --image REGISTRY/steps@sha256:…"""


def main(argv: Sequence[str]) -> int:
    """Write pipeline.yaml and batch.yaml beside their source."""
    parser = options.make_parser(
        "compile",
        "Compile projects to Kubeflow Pipelines YAML: pipeline.yaml (training) and batch.yaml (batch-inference). The files are checked in\n"
        "beside their source: their diff is what changes on the cluster.",
        _EXAMPLES,
    )
    parser.add_argument("projects", nargs="+", type=Path, metavar="PROJECT_DIR")
    parser.add_argument(
        "--output", type=Path, help="where to write, for a single project (default: PROJECT_DIR/pipeline.yaml and batch.yaml)"
    )
    parser.add_argument("--pipeline", choices=["training", "batch"], default="training", help="which one --output is (default training)")
    parser.add_argument("--image", help="the steps image, by digest")
    options.add_registry(parser)
    parser.add_argument("--gpu-image", help="the steps image for GPUs, by digest, where a step asks for an accelerator")
    arguments = parser.parse_args(argv)
    if arguments.output and len(arguments.projects) > 1:
        parser.error("--output goes with a single project")
    from mlpipelines.batch_pipeline import compile_batch_pipeline
    from mlpipelines.pipeline import Target, compile_pipeline
    from mlpipelines.project_file import load_project

    named = {"image": arguments.image, "gpu_image": arguments.gpu_image, "registry": arguments.registry}
    target = Target(**{field: name for field, name in named.items() if name})
    for folder in arguments.projects:
        project = load_project(folder)
        files = (
            {arguments.pipeline: arguments.output}
            if arguments.output
            else {"training": folder / "pipeline.yaml", "batch": folder / "batch.yaml"}
        )
        for pipeline, destination in files.items():
            if pipeline == "batch":
                compile_batch_pipeline(project, destination, target)
            else:
                compile_pipeline(project, folder, destination, target)
            screen.console().print(f"{destination}", soft_wrap=True)
    return 0
