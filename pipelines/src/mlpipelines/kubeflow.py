"""Kubeflow Pipelines, as far as we ask anything of it: start a run, find runs by name, see how they go.

`kfp.Client` knows how to log in (a port-forward, an Identity-Aware Proxy, a pod's own token) and hands out the generated calls; those are made
here with a time limit each, which the client's own methods have not. What fails is told apart by whether trying again can help.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import time
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import yaml

from mlpipelines.errors import ConfigError, Unavailable
from mlpipelines.freshness import mark_of
from mlpipelines.project import Project, Step

OPEN = frozenset({"RUNTIME_STATE_UNSPECIFIED", "PENDING", "RUNNING", "CANCELING", "PAUSED"})
"""States of a run that goes on. A run that was just made has none yet, which reads as the first."""
ENDING_SECONDS = 3600.0
"""A run that has been ended for so long has ended: Argo kills its pods within a minute. What Kubeflow never hears the end of is one whose Workflow somebody deleted."""
TOKEN_FILE = "KF_PIPELINES_SA_TOKEN_PATH"  # noqa: S105  a name
"""The environment variable by which Kubeflow's own client finds a pod's token."""
_PAGE = 50
_CANNOT_HELP = frozenset({400, 422})
"""Answers that stay the same however often one asks."""
_OVER = 400
"""So it answers to whoever wants to end what goes on no more: between looking and ending, a run may end by itself."""
_WRAPPED, _INVALID = 500, r"InvalidInputError|Invalid input error"
"""So it answers to a pipeline that it cannot read, as if the fault were its own: only the text says whose it is."""
_NOTHING = "Internal Server Error"
_WHO = frozenset({401, 403})
"""Answers to who shows no token, or may not: an administrator mends that, and then it works."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterRun:
    """A run on Kubeflow Pipelines."""

    run_id: str
    name: str
    state: str
    created: float
    """Seconds since 1970."""
    error: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """What its pipeline was given."""

    @property
    def open(self) -> bool:
        """Whether it goes on."""
        return self.state in OPEN


class Kubeflow:
    """One installation of Kubeflow Pipelines. Nothing is asked of it before the first call."""

    def __init__(self, host: str, namespace: str | None = None, *, seconds: tuple[float, float] = (5.0, 30.0)) -> None:
        """`seconds` to connect, and to wait for an answer; `namespace` is a team's, on a multi-user installation."""
        self._host, self._namespace, self._seconds = host, namespace, seconds

    def address(self, run: ClusterRun) -> str:
        """The page of a run."""
        return f"{self._host.rstrip('/')}/#/runs/details/{run.run_id}"

    def create(self, *, experiment: str, name: str, reason: str, pipeline: Path, arguments: Mapping[str, Any]) -> ClusterRun:
        """Start a run of a compiled pipeline. Asked twice, it starts two.

        Raises:
            ConfigError: it is refused for what it is.
            Unavailable: it is not known whether it was started. Look for it by its name.
        """
        with self._translated():
            models = self._client.api_models
            asked = models.V2beta1Run(
                experiment_id=self._experiment(experiment, make=True),
                display_name=name,
                description=reason,
                pipeline_spec=_spec(pipeline),
                runtime_config=models.V2beta1RuntimeConfig(parameters=dict(arguments)),
            )
            return _run(self._client.runs.run_service_create_run(run=asked, _request_timeout=self._seconds))

    def named(self, experiment: str, name: str) -> Sequence[ClusterRun]:
        """The runs of this name in an experiment, oldest first. Raises as `create` does."""
        return sorted(self._runs(experiment, {"key": "display_name", "stringValue": name}), key=lambda run: (run.created, run.run_id))

    def newest(self, experiment: str) -> Sequence[ClusterRun]:
        """The last fifty runs of an experiment, newest first. Raises as `create` does."""
        return self._runs(experiment, None)

    def terminate(self, run: ClusterRun) -> None:
        """End a run. One that has ended, or that somebody is ending, stays as it is. Raises as `create` does."""
        import kfp_server_api

        with self._translated():
            try:
                self._client.runs.run_service_terminate_run(run.run_id, _request_timeout=self._seconds)
            except kfp_server_api.ApiException as error:
                if error.status != _OVER:
                    raise

    def _runs(self, experiment: str, predicate: Mapping[str, Any] | None) -> list[ClusterRun]:
        with self._translated():
            place = self._experiment(experiment, make=False)
            if not place:
                return []
            chosen = {"filter": _filter(predicate)} if predicate else {}
            found = self._client.runs.run_service_list_runs(
                experiment_id=place, page_size=_PAGE, sort_by="created_at desc", _request_timeout=self._seconds, **chosen
            )
            return [_run(each) for each in found.runs or []]

    def _experiment(self, name: str, *, make: bool) -> str:
        """The id of an experiment by its name; empty where there is none and none is to be made."""
        experiments, where = self._client.experiments, {"namespace": self._namespace} if self._namespace else {}
        found = experiments.experiment_service_list_experiments(
            filter=_filter({"key": "display_name", "stringValue": name}), _request_timeout=self._seconds, **where
        )
        if found.experiments:
            return str(found.experiments[0].experiment_id)
        if not make:
            return ""
        asked = self._client.api_models.V2beta1Experiment(display_name=name, namespace=self._namespace)
        return str(experiments.experiment_service_create_experiment(experiment=asked, _request_timeout=self._seconds).experiment_id)

    @cached_property
    def _client(self) -> Any:
        import kfp

        seconds = self._seconds

        class Client(kfp.Client):  # type: ignore[misc]  # kfp ships no types
            def get_kfp_healthz(self, sleep_duration: int = 5) -> Any:  # noqa: ARG002  kfp's signature
                """Asked once with a time limit: whoever calls us tries again."""
                return self.healthzs.healthz_service_get_healthz(_request_timeout=seconds)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # that it needs version 2.0
            return Client(host=self._host, namespace=self._namespace or "kubeflow", credentials=_credentials())

    @contextmanager
    def _translated(self) -> Iterator[None]:
        import kfp_server_api
        import urllib3

        try:
            yield
        except kfp_server_api.ApiException as error:
            if error.status in _CANNOT_HELP or (error.status == _WRAPPED and re.search(_INVALID, error.body or "")):
                raise ConfigError(
                    f"{self._host} refused the pipeline ({error.status}): {_said(error.body)}. Is it Kubeflow Pipelines 2.17?"
                ) from error
            said = _said(error.body) or error.reason
            if error.status in _WHO:
                raise Unavailable(
                    f"{self._host} answers {error.status}: {said}. Whoever starts runs in a team's namespace is bound to the role millrace-runner there, and "
                    f"shows a token: `kubectl -n NAMESPACE create token ACCOUNT --audience pipelines.kubeflow.org > FILE`, and {TOKEN_FILE}=FILE."
                ) from error
            raise Unavailable(f"{self._host} answers {error.status}: {said}. Try again.") from error
        except (urllib3.exceptions.HTTPError, ConnectionError, OSError) as error:
            raise Unavailable(
                f"{self._host} does not answer: {error}. Is the port forwarded? `kubectl -n kubeflow port-forward svc/ml-pipeline-ui 8080:80`"
            ) from error


def start_run(
    kubeflow: Kubeflow,
    project: Project,
    folder: Path,
    *,
    image: str,
    name: str,
    reason: str,
    gpu_image: str = "",
    experiment: str = "",
    registry: str = "",
) -> ClusterRun:
    """Compile a project for a cluster and start a run of it.

    Args:
        kubeflow: where.
        project: the parsed project; its name is the experiment where `experiment` says nothing.
        folder: the project's folder.
        image: the steps image, by digest.
        name: of the run.
        reason: why, for the record.
        gpu_image: the steps image for GPUs, by digest, for a project that asks for any. It is made from the same commit: the record goes by `image`.
        experiment: another experiment.
        registry: the Secret with the team's account in the registry, in the namespace of the run.

    Raises:
        ConfigError: an image has no digest or is missing, or the pipeline is refused.
        Unavailable: it is not known whether it was started.
    """
    from mlpipelines.pipeline import compile_pipeline, gpu_steps, target_of
    from mlpipelines.run import lineage_of, marks_of_training

    target = replace(target_of(project, image, gpu_image), registry=registry)
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "pipeline.yaml"
        compile_pipeline(project, folder, file, target)
        return kubeflow.create(
            experiment=experiment or project.name,
            name=name,
            reason=reason,
            pipeline=file,
            arguments={
                "reason": reason,
                "code": _week(time.time()),
                "freshness": mark_of(project.source, folder, uuid.uuid4().hex),  # names of runs may be alike
                "lineage": {
                    **lineage_of(folder),
                    "image": image,
                    **({"gpu_image": gpu_image} if gpu_steps(project) else {}),
                    "reason": reason,
                    **marks_of_training(project, folder, image),
                },
            },
        )


def _week(at: float) -> str:
    """Part of the key of every cached step. The cache of Kubeflow's driver has no end, and what it names is deleted from the object store one day: so a step is
    believed within a week (UTC, from Monday), and an environment keeps artifacts for longer than that.
    """
    year, week, _ = datetime.fromtimestamp(at, UTC).isocalendar()
    return f"{year}-W{week:02}"


def _credentials() -> Any:
    """A pod's own token, where one is mounted for Kubeflow Pipelines; a multi-user installation asks for it. It is read anew for each request."""
    from kfp.client import set_volume_credentials

    file = os.environ.get(TOKEN_FILE)
    return set_volume_credentials.ServiceAccountTokenVolumeCredentials(path=file) if file else None


def _said(body: Any) -> str:
    """The innermost sentence of an answer of the API server, which wraps it several times; anything else as it is."""
    with suppress(ValueError):
        told = json.loads(body or "")
        if isinstance(told, dict) and told.get("message"):
            inner = [each["message"] for each in told.get("details", []) if each.get("message", _NOTHING) != _NOTHING]
            return str(inner[0] if inner else told["message"])
    return str(body or "")


def _filter(predicate: Mapping[str, Any]) -> str:
    return json.dumps({"predicates": [{"operation": "EQUALS", **predicate}]})


def _spec(file: Path) -> Any:
    """A compiled pipeline as the API takes it: the pipeline, with what it says of the platform where it says something."""
    documents = list(yaml.safe_load_all(file.read_text(encoding="utf-8")))
    return documents[0] if len(documents) == 1 else {"pipeline_spec": documents[0], "platform_spec": documents[1]}


def _run(told: Any) -> ClusterRun:
    state = _state(told)
    return ClusterRun(
        run_id=str(told.run_id),
        name=str(told.display_name),
        state=state,
        created=told.created_at.timestamp() if told.created_at else 0.0,
        arguments=dict((told.runtime_config and told.runtime_config.parameters) or {}),
        error=str((told.error and told.error.message) or "") or (_failed_steps(told) if state == "FAILED" else ""),
    )


def _state(told: Any) -> str:
    """What somebody has ended is told as failed, in the end: that it was being ended is left in its history alone."""
    state = str(told.state or "RUNTIME_STATE_UNSPECIFIED")
    ending = [each.update_time for each in told.state_history or [] if each.state == "CANCELING"]
    over = any(at and time.time() - at.timestamp() > ENDING_SECONDS for at in ending)
    return "CANCELED" if ending and (state == "FAILED" or (state == "CANCELING" and over)) else state


def _failed_steps(told: Any) -> str:
    """A run that failed says nothing of why: only which of its tasks failed, those of Argo's that hold others among them. Ours are named for their steps."""
    tasks = (told.run_details and told.run_details.task_details) or []
    failed = {each.display_name for each in tasks if each.state == "FAILED"}
    steps = [step for step in get_args(Step) if step in failed or f"{step}-driver" in failed]
    return f"The step {' and the step '.join(steps)} failed: its log has why." if steps else ""
