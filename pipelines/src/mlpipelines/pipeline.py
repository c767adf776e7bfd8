"""The DAG, and how it is compiled: the only definition of the work.

`compile_pipeline` writes the YAML that Kubeflow Pipelines runs on a cluster and that kfp.local runs on one machine. What a
step's outcome depends on is baked into its arguments (the project scoped to the step, hashes of the project's code and of
the reviewed schema), so a cached result is reused exactly as long as it is still the answer, and the checked-in YAML changes
when, and only when, the work changes. (No `from __future__ import annotations` here: KFP reads the pipeline function's annotations as objects.)
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kfp import compiler, dsl, kubernetes

from mlpipelines import components
from mlpipelines.errors import ConfigError
from mlpipelines.freshness import learns_from_predictions
from mlpipelines.own_code import hash_code
from mlpipelines.project import Project, Resources, Step
from mlpipelines.project_file import to_json

GPU_NODE_LABEL = "cloud.google.com/gke-accelerator"
GPU_RESOURCE = "nvidia.com/gpu"
ALWAYS_RUN: frozenset[Step] = frozenset({"labels", "validate", "evaluate", "register", "publish", "report", "batch"})
"""Steps that read or change what lies outside their inputs (labels of predictions, the last accepted data, the champion, the registry,
the store): never from a cache."""
ASK_THE_REGISTRY: frozenset[Step] = frozenset({"evaluate", "register", "publish", "report", "batch"})
"""Steps that read or write it, and so get the team's account."""
REUSE_FROM_IT: frozenset[Step] = frozenset({"transform", "train"})
"""Steps that read a version from it where a run reuses a training."""
ACCOUNT: Mapping[str, str] = {
    "url": "MLFLOW_TRACKING_URI",
    "username": "MLFLOW_TRACKING_USERNAME",
    "password": "MLFLOW_TRACKING_PASSWORD",
    "workspace": "MLFLOW_WORKSPACE",
}
"""What a team's Secret for the registry holds, and as which environment variables MLflow's client takes it."""
CLAIMS: Mapping[str, str] = {"": "millrace-workspace", "models": "models", "predictions": "predictions"}
"""By folder of the workspace, the PersistentVolumeClaim that steps find there: a bucket through gcsfuse, or a shared file system. Servers read the second,
gateways write the third; the first is the runs' own."""
MOUNTS_BUCKETS = "gke-gcsfuse/volumes"
"""The annotation by which GKE brings buckets into a pod; nobody reads it elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where the compiled pipeline is meant to run. kfp.local ignores all of it."""

    image: str = "millrace/steps-python:unreleased"
    """The steps image. `submit` refuses one that is not named by digest."""
    gpu_image: str = "millrace/steps-gpu-python:unreleased"
    """The same for steps that ask for an accelerator: its TensorFlow runs on GPUs, and everything else in it is alike."""
    projects_dir: str = "/projects"
    """The folder of the projects in the image."""
    workspace: str = "/millrace"
    """Where the workspace is mounted, of the claims in `CLAIMS`."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Environment variables of every step, for example MLFLOW_TRACKING_URI."""
    registry: str = ""
    """A Secret with the team's account in the registry, as `ACCOUNT` says. Empty: the registry is in the workspace, or asks nobody who they are."""

    def image_for(self, resources: Resources) -> str:
        """What a step that asks for these runs in."""
        return self.image if resources.accelerator is None else self.gpu_image


def compile_pipeline(project: Project, project_dir: Path, destination: Path, target: Target | None = None) -> None:
    """Write the project's pipeline as KFP YAML.

    Args:
        project: the parsed project.
        project_dir: its folder; its code and its reviewed schema are hashed.
        destination: the file to write.
        target: image and volume for a cluster.
    """
    compiler.Compiler().compile(_pipeline(project, project_dir, target or Target()), str(destination))


def _pipeline(project: Project, project_dir: Path, target: Target) -> Any:
    hashes = {
        step: hash_code(project, project_dir, step) for step in ("ingest", "transform", "train")
    }  # part of the cache key of what they produce
    reviewed = project_dir / project.schema_file
    schema_hash = hashlib.sha256(reviewed.read_bytes()).hexdigest()[:16] if reviewed.is_file() else ""
    make = ComponentFactory(project, target)

    @dsl.pipeline(name=project.name, description=project.description or f"From raw rows to a gated, published {project.name} model")  # type: ignore[untyped-decorator]  # kfp ships no types
    def millrace_pipeline(
        project_dir: str = f"{target.projects_dir}/{project.name}",
        workspace: str = target.workspace,
        code: str = "",
        freshness: str = "",
        since: str = "",
        until: str = "",
        accept_schema: bool = False,
        reason: str = "",
        lineage: dict = {},  # type: ignore[type-arg]  # noqa: B006  # KFP reads the default and the bare type
    ) -> None:
        common = {"project_dir": project_dir, "workspace": workspace}
        exit_task = make("report", reason=reason, **common)
        with dsl.ExitHandler(exit_task, name="from rows to model"):
            labels = make("labels", **common).output if learns_from_predictions(project) else ""
            rows = make(
                "ingest", code=code, project_code=hashes["ingest"], freshness=freshness, labels=labels, since=since, until=until, **common
            )
            described = make("statistics", code=code, data=rows.outputs["data"], **common)
            checked = make(
                "validate",
                code=code,
                reviewed_schema=schema_hash,
                accept_schema=accept_schema,
                data=rows.outputs["data"],
                statistics=described.outputs["statistics"],
                **common,
            )
            features = make("transform", code=code, project_code=hashes["transform"], data=rows.outputs["data"], **common).after(checked)
            fitted = make(
                "train",
                code=code,
                project_code=hashes["train"],
                data=rows.outputs["data"],
                transformed=features.outputs["transformed"],
                **common,
            )
            judged = make(
                "evaluate",
                reason=reason,
                data=rows.outputs["data"],
                test=rows.outputs["test"],
                model=fitted.outputs["model"],
                **common,
            )
            with dsl.If(judged.outputs["Output"] == True, name="blessed"):  # noqa: E712  # KFP overloads ==
                entered = make(
                    "register",
                    lineage=lineage,
                    data=rows.outputs["data"],
                    schema=checked.outputs["schema"],
                    model=fitted.outputs["model"],
                    evaluation=judged.outputs["evaluation"],
                    **common,
                )
                make(
                    "publish",
                    version=entered.output,
                    data=rows.outputs["data"],
                    test=rows.outputs["test"],
                    model=fitted.outputs["model"],
                    statistics=described.outputs["statistics"],
                    evaluation=judged.outputs["evaluation"],
                    **common,
                )

    return millrace_pipeline


class ComponentFactory:
    """Makes tasks of our components, each with the project scoped to it and the resources it asks for."""

    def __init__(self, project: Project, target: Target) -> None:
        self._project, self._target = project, target

    def __call__(self, step: Step, **arguments: Any) -> Any:
        """The task of a step, with its place in the cluster."""
        resources = self._project.resources_of(step)
        component = dsl.component(base_image=self._target.image_for(resources), install_kfp_package=False)(getattr(components, step))
        task = component(project=to_json(self._project.scoped(step)), **arguments)
        _place(task, step, resources)
        for name, value in self._target.environment.items():
            task.set_env_variable(name, value)
        kubernetes.use_field_path_as_env(task, env_name="MILLRACE_RUN_ID", field_path="metadata.labels['pipeline/runid']")
        kubernetes.add_pod_annotation(task, MOUNTS_BUCKETS, "true")
        for folder, claim in CLAIMS.items():
            kubernetes.mount_pvc(task, pvc_name=claim, mount_path=f"{self._target.workspace}/{folder}".rstrip("/"))
        if self._target.registry and (step in ASK_THE_REGISTRY or (self._project.training.reuse is not None and step in REUSE_FROM_IT)):
            kubernetes.use_secret_as_env(task, secret_name=self._target.registry, secret_key_to_env=dict(ACCOUNT))
        if step in ("ingest", "batch"):
            for name in secrets_in(self._project.source.url or ""):
                kubernetes.use_secret_as_env(task, secret_name=f"{self._project.name}-source", secret_key_to_env={name: name})
        return task


def _place(task: Any, step: Step, resources: Resources) -> None:
    """Say what the pod of a step asks for and where it may run."""
    task.set_cpu_request(resources.cpu).set_memory_request(resources.memory).set_memory_limit(resources.memory)
    if resources.accelerator is not None:
        task.set_accelerator_type(GPU_RESOURCE).set_accelerator_limit(resources.accelerator.count)
        kubernetes.add_node_selector(task, label_key=GPU_NODE_LABEL, label_value=resources.accelerator.type)
    for key, value in resources.node_selector.items():
        kubernetes.add_node_selector(task, label_key=key, label_value=value)
    for toleration in resources.tolerations:
        kubernetes.add_toleration(task, key=toleration.key, operator=toleration.operator, value=toleration.value, effect=toleration.effect)
    if resources.retries:
        task.set_retry(num_retries=resources.retries, backoff_duration="30s", backoff_factor=2.0)
    if resources.timeout_minutes is not None:
        kubernetes.set_timeout(task, seconds=resources.timeout_minutes * 60)
    task.set_caching_options(enable_caching=resources.cache and step not in ALWAYS_RUN)


def secrets_in(url: str) -> list[str]:
    """The names in `${NAME}` places of a source's URL."""
    return re.findall(r"\$\{(\w+)\}", url)


def require_digest(image: str, option: str = "--image") -> None:
    """Refuse an image that is named by a tag: a pushed-over tag would make KFP's cache answer for other code.

    Raises:
        ConfigError: the image has no digest.
    """
    if not re.search(r"@sha256:[0-9a-f]{64}$", image):
        raise ConfigError(
            f"the image {image!r} is not named by digest. Use {option} REPOSITORY@sha256:…; `docker push` and `crane digest` print it."
        )


def target_of(project: Project, image: str, gpu_image: str = "") -> Target:
    """A project's steps in these images.

    Args:
        project: the parsed project.
        image: the steps image, by digest.
        gpu_image: the one for GPUs, by digest; empty: there is none.

    Raises:
        ConfigError: an image has no digest, or a step asks for GPUs and there is no image for it.
    """
    require_digest(image)
    if gpu_image:
        require_digest(gpu_image, "--gpu-image")
        return Target(image=image, gpu_image=gpu_image)
    if asking := gpu_steps(project):
        raise ConfigError(
            f"{project.name}: resources.{asking[0]}.accelerator asks for GPUs, and the steps image is for processors. "
            "Name the image for GPUs too: --gpu-image REGISTRY/steps-gpu@sha256:… (make images IMAGES=steps-gpu)"
        )
    return Target(image=image)


def gpu_steps(project: Project) -> list[str]:
    """Steps that ask for GPUs."""
    return [step for step, resources in project.resources.items() if resources.accelerator is not None]
