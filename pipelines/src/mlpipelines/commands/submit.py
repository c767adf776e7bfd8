"""`millrace submit`."""

from __future__ import annotations

from collections.abc import Sequence

from mlpipelines.commands import options, screen

_EXAMPLES = """  millrace submit pipelines/projects/transactions --host http://127.0.0.1:8080 --image REGISTRY/steps@sha256:…
  millrace submit my-project --host https://kubeflow.example.com --image REGISTRY/steps@sha256:… --experiment nightly"""


def main(argv: Sequence[str]) -> int:
    """Start a run on a cluster."""
    parser = options.make_parser(
        "submit", "Compile a project and start a run of it on Kubeflow Pipelines. Prints the run's id and address.", _EXAMPLES
    )
    options.add_project(parser)
    parser.add_argument("--host", required=True, help="the address of the Kubeflow Pipelines API")
    parser.add_argument("--image", required=True, help="the steps image, by digest")
    parser.add_argument("--gpu-image", default="", help="the steps image for GPUs, by digest, where a step asks for an accelerator")
    parser.add_argument("--experiment", help="default: the project's name")
    parser.add_argument("--namespace", help="the team's namespace, on a multi-user installation")
    options.add_registry(parser)
    parser.add_argument("--reason", default="started by hand", help="why, for the record")
    options.add_json(parser)
    arguments = parser.parse_args(argv)
    from mlpipelines.kubeflow import Kubeflow, start_run

    project, kubeflow = options.project_of(arguments), Kubeflow(arguments.host, arguments.namespace)
    run = start_run(
        kubeflow,
        project,
        arguments.project_dir,
        image=arguments.image,
        gpu_image=arguments.gpu_image,
        name=f"{project.name} · {arguments.reason}",
        reason=arguments.reason,
        experiment=arguments.experiment or "",
        registry=arguments.registry,
    )
    facts = {"run": run.run_id, "url": kubeflow.address(run)}
    if arguments.json:
        screen.print_json(facts)
    else:
        screen.console().print(f"Started {facts['run']}\n{facts['url']}", soft_wrap=True)
    return 0
