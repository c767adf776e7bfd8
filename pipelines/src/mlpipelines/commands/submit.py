"""`millrace submit`."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlpipelines.commands import options, screen
from mlpipelines.errors import ConfigError, Unavailable

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
    parser.add_argument("--experiment", help="default: the project's name")
    parser.add_argument("--namespace", help="the team's namespace, on a multi-user installation")
    parser.add_argument("--reason", default="started by hand", help="why, for the record")
    options.add_json(parser)
    arguments = parser.parse_args(argv)
    run = _submit(arguments)
    facts = {"run": run.run_id, "url": f"{arguments.host.rstrip('/')}/#/runs/details/{run.run_id}"}
    if arguments.json:
        screen.print_json(facts)
    else:
        screen.console().print(f"Started {facts['run']}\n{facts['url']}", soft_wrap=True)
    return 0


def _submit(arguments: Any) -> Any:
    import kfp
    import kfp_server_api
    import urllib3

    from mlpipelines.pipeline import Target, compile_pipeline, require_digest
    from mlpipelines.run import lineage_of

    require_digest(arguments.image)
    project = options.project_of(arguments)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pipeline.yaml"
        compile_pipeline(project, arguments.project_dir, file, Target(image=arguments.image))
        try:
            client = kfp.Client(host=arguments.host, namespace=arguments.namespace or "kubeflow")
            return client.create_run_from_pipeline_package(
                str(file),
                arguments={"reason": arguments.reason, "lineage": {**lineage_of(arguments.project_dir), "image": arguments.image}},
                run_name=f"{project.name} · {arguments.reason}",
                experiment_name=arguments.experiment or project.name,
                namespace=arguments.namespace,
            )
        except kfp_server_api.ApiException as error:
            raise ConfigError(
                f"{arguments.host} refused the pipeline ({error.status}): {error.body}. Is it Kubeflow Pipelines 2.17?"
            ) from error
        except (urllib3.exceptions.HTTPError, ConnectionError, OSError) as error:
            raise Unavailable(
                f"{arguments.host} does not answer: {error}. Is the port forwarded? `kubectl -n kubeflow port-forward svc/ml-pipeline-ui 8080:80`"
            ) from error
