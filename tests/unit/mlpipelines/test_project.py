"""What an ML engineer may write in project.yaml, and what the errors say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from mlpipelines.errors import ConfigError
from mlpipelines.project import STEPS, Project, Resources
from mlpipelines.project_file import from_json, load_project, parse_project, to_json

SMALLEST: dict[str, Any] = {
    "name": "churn",
    "team": "growth",
    "task": "classification",
    "source": {"kind": "parquet", "path": "rows.parquet"},
    "features": {"page": "string"},
    "label": {"column": "outcome"},
}


def project(**changes: Any) -> Project:
    return parse_project({**SMALLEST, **changes}, origin="project.yaml")


def write(folder: Path, name: str = "project.yaml", **changes: Any) -> Path:
    file = folder / name
    file.write_text(yaml.safe_dump({**SMALLEST, **changes} if name == "project.yaml" else changes))
    return file


def test_six_fields_are_enough() -> None:
    assert project().column_types == {"page": "string", "outcome": "string"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "Churn!"}, "name"),
        ({"colour": "red"}, "colour: Extra inputs"),
        ({"source": {"kind": "sql", "table": "t"}}, "needs 'url'"),
        ({"deployment": {"log": {"features": ["card"]}}}, "deployment.log.features names 'card'"),
        ({"deployment": {"rollout": {"steps": [10, 5, 100]}}}, "must rise"),
        ({"deployment": {"rollout": {"limits": {"confidence": 1}}}}, "deployment.rollout.limits.confidence"),
        ({"deployment": {"approval": {"two_person": True}}}, "two_person"),
        ({"source": {"kind": "sql", "url": "sqlite://"}}, "either 'table' or 'query'"),
        ({"split": {"by": "group"}}, "needs 'group'"),
        ({"split": {"by": "time"}}, "needs 'time'"),
        ({"split": {"stratify": "nowhere"}}, "split.stratify names the column 'nowhere'"),
        ({"evaluation": {"slices": [{"column": "nowhere"}]}}, "evaluation.slices.0.column"),
        ({"features": {"outcome": "string"}}, "the model would read the answer"),
        ({"features": {}}, "features"),
        ({"label": None}, "needs 'label'"),
        ({"time": "page"}, "must be 'timestamp'"),
        ({"schedule": {"cron": "0 5 * *"}}, "schedule.cron"),
        ({"retraining": {"rollout": "automatic"}}, "needs deployment.track: canary"),
    ],
)
def test_what_cannot_be_is_refused_by_field(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        project(**changes)
    assert said in str(refusal.value)
    assert "project.yaml" in str(refusal.value)
    assert "docs/reference/project.md" in str(refusal.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"task": "similarity", "features": {"text": "string"}},
        {"task": "detection", "label": {"column": "fraud", "kind": "flag", "use": "evaluation"}},
        {"task": "detection", "label": None},
        {"task": "detection", "features": {"left": "string", "right": "string"}, "label": {"column": "same", "kind": "flag"}},
        {"task": "multilabel", "features": {"image": "bytes"}, "label": {"column": "tags", "kind": "classes"}},
        {"task": "regression", "label": {"column": "value", "kind": "number"}},
    ],
    ids=["similarity", "outliers", "outliers without any label", "matching pairs", "images with many labels", "a quantity"],
)
def test_the_file_carries_every_kind_of_model_that_comes_next(changes: dict[str, Any]) -> None:
    assert project(**changes).task == changes["task"]


def test_an_overlay_lies_over_the_file_and_null_takes_a_field_back(tmp_path: Path) -> None:
    write(tmp_path, key="id", training={"epochs": 3, "seed": 5})
    overlay = write(tmp_path, "real.yaml", key=None, training={"epochs": 9})
    found = load_project(tmp_path, overlays=[overlay])
    assert found.key is None
    assert (found.training.epochs, found.training.seed) == (9, 5)


def test_settings_come_last_and_are_read_as_yaml(tmp_path: Path) -> None:
    write(tmp_path, time="at", features={"page": "string", "at": "timestamp"})
    found = load_project(
        tmp_path, settings=["source.path=other.parquet", "split.by=time", "split.test_from=2017-04-01", "training.epochs=2"]
    )
    assert found.source.path == "other.parquet"
    assert str(found.split.test_from) == "2017-04-01"
    assert found.training.epochs == 2


@pytest.mark.parametrize(
    "settings",
    [["source.kind=csv", "source.path=other.csv"], ["source.path=other.csv", "source.kind=csv"]],
    ids=["kind first", "path first"],
)
def test_another_kind_of_source_leaves_behind_what_only_the_old_kind_knows(tmp_path: Path, settings: list[str]) -> None:
    write(tmp_path, source={"kind": "python", "entry": "generator:rows", "options": {"rows": 5}, "span": "day"})
    found = load_project(tmp_path, settings=settings)
    assert (found.source.kind, found.source.path, found.source.entry, found.source.options) == ("csv", "other.csv", None, {})
    assert found.source.span == "day"


def test_a_setting_without_a_value_says_how_to_write_one(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(ConfigError, match=r"--set source\.path=rows\.parquet"):
        load_project(tmp_path, settings=["source.path"])


def test_a_missing_file_and_a_broken_file_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="millrace new NAME"):
        load_project(tmp_path)
    (tmp_path / "project.yaml").write_text("name: [")
    with pytest.raises(ConfigError, match="is not YAML"):
        load_project(tmp_path)


def test_a_project_survives_the_way_to_a_step() -> None:
    before = project(training={"epochs": 3}, split={"test": 0.2})
    assert from_json(to_json(before)) == before


@pytest.mark.parametrize("step", STEPS)
def test_a_scoped_project_is_a_valid_project(step: Any) -> None:
    full = project(
        time="at", features={"page": "string", "at": "timestamp"}, split={"by": "time"}, source={**SMALLEST["source"], "incremental": True}
    )
    assert from_json(to_json(full.scoped(step))) == full.scoped(step)


def test_a_change_reaches_only_the_steps_whose_outcome_depends_on_it() -> None:
    before = project()

    def touched(**changes: Any) -> set[str]:
        after = project(**changes)
        return {step for step in STEPS if before.scoped(step) != after.scoped(step)}

    assert touched(source={"kind": "csv", "path": "a.csv"}) == {"labels", "ingest", "report"}
    assert touched(training={"epochs": 3}) == {"train", "evaluate", "register", "report"}
    assert touched(validation={"drift": 0.5}) == {"validate", "publish", "report"}  # what the monitor holds served rows against goes along
    assert touched(evaluation={"metric": "macro_f1"}) == {"evaluate", "register", "publish", "report"}
    assert touched(evaluation={"capacity": {"cases": 5}}) == {
        "train",
        "evaluate",
        "register",
        "publish",
        "report",
    }  # a model may flag as many
    assert touched(review={"capacity": 40}) == {"publish"}
    assert touched(description="Other words") == set()
    assert touched(resources={"train": {"cpu": "8"}}) == set()


def test_training_exports_what_explains_and_knows_nothing_else_of_the_deployment() -> None:
    plain, explained = project(deployment={"keep_versions": 5}), project(deployment={"keep_versions": 5, "explanations": {}})
    assert plain.scoped("train") == project().scoped("train")
    assert explained.scoped("train") == project(deployment={"explanations": {}}).scoped("train") != plain.scoped("train")


def test_ingest_knows_whose_predictions_it_learns_from_and_nothing_else_of_the_deployment() -> None:
    served = project(deployment={"model": "leavers", "keep_versions": 5, "log": {"features": ["page"]}}).scoped("ingest")
    assert served.model_name == "leavers"
    assert served == project(deployment={"model": "leavers"}).scoped("ingest")
    alone = {**SMALLEST["source"], "learn_from": []}
    assert project(source=alone, deployment={"model": "leavers"}).scoped("ingest") == project(source=alone).scoped("ingest")


def test_what_looks_at_files_asks_for_little_unless_it_is_told_otherwise() -> None:
    assert project().resources_of("ingest") == Resources()
    little = project().resources_of("labels")
    assert (little.cpu, little.memory) == ("100m", "512Mi")
    told = project(resources={"labels": {"memory": "1Gi", "retries": 1}}).resources_of("labels")
    assert (told.cpu, told.memory, told.retries) == ("100m", "1Gi", 1)
