"""The compiled pipeline says on which machine a step runs, when it is reused, and in which order things happen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from mlpipelines.errors import ConfigError
from mlpipelines.own_code import hash_code
from mlpipelines.pipeline import Target, compile_pipeline, require_digest, secrets_in, target_of
from mlpipelines.project import Project
from mlpipelines.project_file import parse_project

DIGEST = "registry.example.com/steps@sha256:" + "a" * 64


def project(**changes: Any) -> Project:
    values: dict[str, Any] = {
        "name": "churn",
        "team": "growth",
        "task": "classification",
        "source": {"kind": "parquet", "path": "rows.parquet"},
        "features": {"page": "string"},
        "label": {"column": "outcome"},
    }
    return parse_project({**values, **changes}, origin="project.yaml")


def compiled(folder: Path, target: Target | None = None, **changes: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The pipeline and its platform half."""
    compile_pipeline(project(**changes), folder, folder / "pipeline.yaml", target)
    documents = list(yaml.safe_load_all((folder / "pipeline.yaml").read_text()))
    platform = documents[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    return documents[0], platform


def container(spec: dict[str, Any], step: str) -> dict[str, Any]:
    found: dict[str, Any] = spec["deploymentSpec"]["executors"][f"exec-{step}"]["container"]
    return found


def tasks(spec: dict[str, Any]) -> dict[str, Any]:
    """Every task of every level, by name."""
    levels = [spec["root"], *spec["components"].values()]
    return {name: task for level in levels for name, task in level.get("dag", {}).get("tasks", {}).items()}


def test_the_steps_come_in_order_and_publishing_hangs_on_the_verdict(tmp_path: Path) -> None:
    found = tasks(compiled(tmp_path)[0])
    assert found["transform"]["dependentTasks"] == ["ingest", "validate"]
    assert found["publish"]["dependentTasks"] == ["register"]
    gate = next(task for name, task in found.items() if name.startswith("condition"))
    assert "evaluate-Output" in gate["triggerPolicy"]["condition"]
    assert found["report"]["triggerPolicy"]["strategy"] == "ALL_UPSTREAM_TASKS_COMPLETED"


def test_what_reads_the_world_outside_is_never_taken_from_a_cache(tmp_path: Path) -> None:
    found = tasks(compiled(tmp_path)[0])
    reused = {name for name, task in found.items() if task.get("cachingOptions", {}).get("enableCache")}
    assert reused & {"ingest", "statistics", "transform", "train"} == {"ingest", "statistics", "transform", "train"}
    assert not reused & {"labels", "validate", "evaluate", "register", "publish", "report"}


def test_rows_are_read_anew_when_a_step_of_the_run_says_that_there_are_other_labels(tmp_path: Path) -> None:
    spec = compiled(tmp_path)[0]
    asked = tasks(spec)["ingest"]["inputs"]["parameters"]["labels"]
    assert asked == {"taskOutputParameter": {"outputParameterKey": "Output", "producerTask": "labels"}}
    assert "labels" not in spec["root"]["inputDefinitions"]["parameters"], "nobody outside has to know them"
    assert container(spec, "labels")["resources"]["resourceMemoryLimit"] == "512Mi"


@pytest.mark.parametrize(
    "changes",
    [
        {"source": {"kind": "parquet", "path": "rows.parquet", "learn_from": []}},
        {"label": {"column": "outcome", "use": "evaluation"}, "task": "detection"},
    ],
    ids=["from-nobody", "labels-that-only-judge"],
)
def test_where_nothing_is_learned_from_predictions_nobody_looks_for_labels(tmp_path: Path, changes: dict[str, Any]) -> None:
    found = tasks(compiled(tmp_path, **changes)[0])
    assert "labels" not in found
    assert found["ingest"]["inputs"]["parameters"]["labels"] == {"runtimeValue": {"constant": ""}}


def test_resources_of_a_step_reach_its_pod(tmp_path: Path) -> None:
    spec, platform = compiled(
        tmp_path,
        resources={
            "train": {
                "cpu": "8",
                "memory": "32Gi",
                "accelerator": {"type": "nvidia-l4", "count": 2},
                "node_selector": {"pool": "gpu"},
                "tolerations": [{"key": "nvidia.com/gpu"}],
                "retries": 2,
                "timeout_minutes": 90,
                "cache": False,
            }
        },
    )
    asked = container(spec, "train")["resources"]
    assert (asked["resourceCpuRequest"], asked["resourceMemoryLimit"]) == ("8", "32Gi")
    assert asked["accelerator"]["resourceType"] == "nvidia.com/gpu"
    assert asked["accelerator"]["resourceCount"] == "2"
    train = platform["exec-train"]
    assert train["nodeSelector"]["labels"] == {"cloud.google.com/gke-accelerator": "nvidia-l4", "pool": "gpu"}
    assert train["tolerations"][0]["key"] == "nvidia.com/gpu"
    assert train["activeDeadlineSeconds"] == "5400"
    assert tasks(spec)["train"]["retryPolicy"]["maxRetryCount"] == 2
    assert not tasks(spec)["train"].get("cachingOptions", {}).get("enableCache")
    assert "accelerator" not in container(spec, "ingest")["resources"]


def test_every_step_finds_the_workspace_the_models_and_the_predictions_each_in_its_claim(tmp_path: Path) -> None:
    _, platform = compiled(tmp_path)
    wanted = {"/millrace": "millrace-workspace", "/millrace/models": "models", "/millrace/predictions": "predictions"}
    for step, pod in platform.items():
        assert {mount["mountPath"]: mount["constant"] for mount in pod["pvcMount"]} == wanted, step
        assert pod["podMetadata"]["annotations"] == {"gke-gcsfuse/volumes": "true"}, step


def test_artifacts_have_types_that_the_page_can_show(tmp_path: Path) -> None:
    spec = compiled(tmp_path)[0]
    types = {
        (name.removeprefix("comp-"), output): artifact["artifactType"]["schemaTitle"]
        for name, component in spec["components"].items()
        for output, artifact in component.get("outputDefinitions", {}).get("artifacts", {}).items()
    }
    assert types["ingest", "data"] == "system.Dataset"
    assert types["statistics", "statistics"] == "system.Statistics"
    assert types["validate", "schema"] == "system.Schema"
    assert types["train", "model"] == "system.Model"
    assert types["evaluate", "verdict"] == types["validate", "page"] == types["statistics", "page"] == "system.HTML"
    assert types["evaluate", "curves"] == "system.ClassificationMetrics"


def test_every_pod_runs_the_image_that_was_named(tmp_path: Path) -> None:
    spec = compiled(tmp_path, Target(image=DIGEST))[0]
    assert {executor["container"]["image"] for executor in spec["deploymentSpec"]["executors"].values()} == {DIGEST}


GPUS = "registry.example.com/steps-gpu@sha256:" + "b" * 64
ON_GPUS: dict[str, Any] = {"resources": {"train": {"accelerator": {"type": "nvidia-l4"}}}}


def test_only_a_step_that_asks_for_gpus_runs_in_the_image_for_them(tmp_path: Path) -> None:
    spec = compiled(tmp_path, target_of(project(**ON_GPUS), DIGEST, GPUS), **ON_GPUS)[0]
    images = {name: executor["container"]["image"] for name, executor in spec["deploymentSpec"]["executors"].items()}
    assert {name for name, image in images.items() if image == GPUS} == {"exec-train"}
    assert set(images.values()) == {DIGEST, GPUS}


def test_a_step_that_asks_for_gpus_is_refused_without_an_image_for_them() -> None:
    with pytest.raises(ConfigError, match=r"churn: resources\.train\.accelerator asks for GPUs.*--gpu-image"):
        target_of(project(**ON_GPUS), DIGEST)
    with pytest.raises(ConfigError, match=r"steps-gpu:1' is not named by digest. Use --gpu-image"):
        target_of(project(**ON_GPUS), DIGEST, "registry.example.com/steps-gpu:1")
    assert target_of(project(), DIGEST).image == DIGEST, "who asks for none needs none"


def test_the_secrets_of_a_database_reach_only_the_step_that_reads_it(tmp_path: Path) -> None:
    _, platform = compiled(tmp_path, source={"kind": "sql", "url": "postgresql://u:${DB_PASSWORD}@db/x", "table": "t"})
    assert platform["exec-ingest"]["secretAsEnv"][0]["keyToEnv"] == [{"secretKey": "DB_PASSWORD", "envVar": "DB_PASSWORD"}]
    assert "secretAsEnv" not in platform["exec-train"]
    assert secrets_in("a${ONE}b${TWO}") == ["ONE", "TWO"]


def test_the_account_in_the_registry_reaches_only_the_steps_that_ask_it(tmp_path: Path) -> None:
    _, platform = compiled(tmp_path, Target(registry="registry-account"))
    holders = {name.removeprefix("exec-") for name, each in platform.items() if "secretAsEnv" in each}
    assert holders == {"evaluate", "register", "publish", "report"}
    (account,) = platform["exec-register"]["secretAsEnv"]
    assert account["secretName"] == "registry-account"
    assert {"secretKey": "password", "envVar": "MLFLOW_TRACKING_PASSWORD"} in account["keyToEnv"]
    assert {"secretKey": "workspace", "envVar": "MLFLOW_WORKSPACE"} in account["keyToEnv"]


def test_a_run_that_reuses_a_training_asks_the_registry_for_it_with_the_account_too(tmp_path: Path) -> None:
    _, platform = compiled(tmp_path, Target(registry="registry-account"), training={"reuse": 3})
    holders = {name.removeprefix("exec-") for name, each in platform.items() if "secretAsEnv" in each}
    assert holders == {"transform", "train", "evaluate", "register", "publish", "report"}


def test_no_step_installs_packages_when_it_starts(tmp_path: Path) -> None:
    compiled(tmp_path)
    assert "pip install" not in (tmp_path / "pipeline.yaml").read_text()


@pytest.mark.parametrize("image", ["steps:latest", "steps", "steps@sha256:abc"])
def test_an_image_without_a_whole_digest_is_refused(image: str) -> None:
    with pytest.raises(ConfigError, match="digest"):
        require_digest(image)


def test_a_changed_model_does_not_make_the_rows_stale(tmp_path: Path) -> None:
    generated = project(source={"kind": "python", "entry": "generator:rows"})
    for name in ("features", "model", "generator"):
        (tmp_path / f"{name}.py").write_text("1")
    before = {step: hash_code(generated, tmp_path, step) for step in ("ingest", "transform", "train")}

    def changed(name: str) -> set[str]:
        file = tmp_path / f"{name}.py"
        file.write_text("2")
        try:
            return {step for step in ("ingest", "transform", "train") if hash_code(generated, tmp_path, step) != before[step]}
        finally:
            file.write_text("1")

    assert changed("model") == {"train"}
    assert changed("features") == {"transform", "train"}
    assert changed("generator") == {"ingest"}
