"""From a trained model to a version in the model store, with a real SavedModel, a real registry and a real store.

The model is a small graph whose skill is a number, so that "better" and "worse" are what the test says they are.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from mlpipelines.artifacts import KEY, Evaluation, Model, Statistics, Trained
from mlpipelines.errors import ConfigError, Conflict, ModelRejected, Unavailable
from mlpipelines.evaluation.served_model import answer_rows, load_model
from mlpipelines.evaluation.verdict import Verdict, from_json
from mlpipelines.project import Project
from mlpipelines.project_file import parse_project
from mlpipelines.publishing import registry
from mlpipelines.publishing.trained_files import trained_files
from mlpipelines.steps.evaluate import evaluate
from mlpipelines.steps.publish import publish
from mlpipelines.steps.register import register
from mlpipelines.steps.statistics import describe
from mlpipelines.workspace import Workspace, write_json
from mlserving.monitor.reference import read_reference
from mlserving.review.carried import of_model
from mlserving.review.settings import ReviewSettings
from mlserving.store import GOLDEN_REQUESTS, WARMUP_REQUESTS, versions

CLASSES = ("food", "fuel", "rail")


def a_project(**evaluation: Any) -> Project:
    values = {
        "name": "cards",
        "team": "finance",
        "task": "classification",
        "source": {"kind": "parquet", "path": "unused"},
        "key": "id",
        "time": "at",
        "features": {"merchant": "string", "amount": "float"},
        "context": {"team": "string"},
        "label": {"column": "category"},
        "evaluation": {"resamples": 200, **evaluation},
        "deployment": {"keep_versions": 2, "warmup_requests": 7},
        "training": {"epochs": 3, "parameters": {"width": 8}},
    }
    return parse_project(values, origin="project.yaml")


def some_rows(count: int, seed: int) -> pa.Table:
    """Merchants whose first character is the class; three teams; a missing amount here and there."""
    source = np.random.default_rng(seed)
    true = np.minimum(source.integers(0, 4, count), 2)  # rail is the most frequent
    return pa.table(
        {
            KEY: pa.array([f"r{seed}-{i}" for i in range(count)]),
            "id": pa.array([f"r{seed}-{i}" for i in range(count)]),
            "at": pa.array(1_480_000_000 + 3600 * np.arange(count)),
            "merchant": pa.array([f"{place} shop {source.integers(0, 50) % 20}" for place in true]),
            "amount": pa.array(source.uniform(0, 100, count).round(2), pa.float32(), mask=source.random(count) < 0.02),
            "team": pa.array(source.choice(["fleet", "schools", "parks"], count, p=[0.55, 0.4, 0.05])),
            "category": pa.array([CLASSES[place] for place in true]),
        }
    )


def export_model(folder: Path, skill: float) -> None:
    """A SavedModel that answers right for a share `skill` of all amounts, and calls the next class otherwise."""
    import tensorflow as tf

    names = folder.with_name(f"{folder.name}-names") / "classes.txt"
    names.parent.mkdir(parents=True, exist_ok=True)
    names.write_text("\n".join(CLASSES) + "\n")

    class Cards(tf.Module):  # type: ignore[misc]  # TensorFlow ships no types
        def __init__(self) -> None:
            super().__init__()
            self.names = tf.saved_model.Asset(str(names))
            self.skill = tf.Variable(skill * 100)
            self.classes = tf.constant(CLASSES)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "merchant"), tf.TensorSpec([None], tf.float32, "amount")])  # type: ignore[untyped-decorator]
        def serve(self, merchant: Any, amount: Any) -> dict[str, Any]:
            place = tf.strings.to_number(tf.strings.substr(merchant, 0, 1), tf.int32)
            cents = tf.math.floormod(tf.where(tf.math.is_nan(amount), 0.0, amount) * 7919.0, 100.0)
            answer = tf.where(cents < self.skill, place, (place + 1) % len(CLASSES))
            scores = 0.1 + 0.7 * tf.one_hot(answer, len(CLASSES))
            return {"label": tf.gather(self.classes, answer), "confidence": tf.reduce_max(scores, axis=1), "scores": scores}

    model = Cards()
    tf.saved_model.save(model, str(folder), signatures={"serving_default": model.serve})
    shutil.rmtree(names.parent)


def export_keras_model(folder: Path, *, holds: str) -> None:
    """A Keras 3 model behind a tf.Module that has the Keras model itself as an attribute, or its tf.Variables."""
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(len(CLASSES), activation="softmax")])
    module = tf.Module()
    module.held = model if holds == "the model" else [variable.value for variable in model.variables]

    def serve(merchant: Any, amount: Any) -> dict[str, Any]:
        scores = model(tf.where(tf.math.is_nan(amount), 0.0, amount)[:, None] / 100.0)
        label = tf.gather(tf.constant(CLASSES), tf.argmax(scores, axis=1))
        return {"label": label, "confidence": tf.reduce_max(scores, axis=1), "scores": scores}

    inputs = [tf.TensorSpec([None], tf.string, "merchant"), tf.TensorSpec([None], tf.float32, "amount")]
    module.serve = tf.function(serve, input_signature=inputs)
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.serve})


@dataclass
class Room:
    """A workspace with a sealed test set, data, schema, and models to order."""

    root: Path
    project: Project = field(default_factory=a_project)
    runs: int = 0

    def __post_init__(self) -> None:
        for name in ("data/train/2016-12", "test", "models"):
            (self.root / name).mkdir(parents=True)
        pq.write_table(some_rows(900, 1), self.root / "data/train/2016-12/rows.parquet")
        write_json(self.root / "data/manifest.json", {"content_hash": "d" * 64, "rows": {"train": 900, "validation": 100}})
        pq.write_table(some_rows(1200, 2), self.root / "test/test.parquet")
        seal = {
            "content_hash": "5" * 64,
            "rows": 1200,
            "sealed_at": "2026-11-21T10:00:00Z",
            "window": {"oldest": "2017-04-01", "newest": "2018-02-28"},
        }
        write_json(self.root / "test/manifest.json", seal)
        write_json(self.workspace.project("cards").sealed / "manifest.json", seal)
        (self.root / "schema.pbtxt").write_text("feature { name: 'merchant' }")
        Statistics(self.statistics).root.mkdir()
        described = describe(some_rows(900, 1).drop_columns([KEY]).to_batches(), "train")
        Statistics(self.statistics).of("train").write_bytes(described.SerializeToString())

    @property
    def statistics(self) -> Path:
        return self.root / "statistics"

    @property
    def workspace(self) -> Workspace:
        return Workspace(self.root / "workspace")

    @property
    def test(self) -> Path:
        return self.root / "test"

    @property
    def store(self) -> Path:
        return self.workspace.model_store

    def model(self, skill: float) -> Path:
        """A `Model` artifact; the same skill is the same model."""
        folder = self.root / "models" / f"skill-{skill}"
        if not folder.exists():
            export_model(Model(folder).saved_model, skill)
            write_reference(self.project, folder)
            write_json(
                Model(folder).training,
                {"seconds": 12.5, "epochs_run": 3, "best_epoch": 1, "history": [{"val_loss": 0.5}], "peak_memory_mb": 900.0},
            )
        return folder

    def evaluate(self, model: Path, **evaluation: Any) -> Verdict:
        self.runs += 1
        project = a_project(**evaluation) if evaluation else self.project
        return evaluate(
            project=project,
            workspace=self.workspace,
            test=self.test,
            data=self.root / "data",
            model=model,
            evaluation=self.evaluation,
            run_id=f"run-{self.runs}",
        )

    @property
    def evaluation(self) -> Path:
        return self.root / "evaluations" / f"run-{self.runs}"

    def register(self, model: Path) -> int:
        return register(
            project=self.project,
            workspace=self.workspace,
            data=self.root / "data",
            schema=self.root / "schema.pbtxt",
            model=model,
            evaluation=self.evaluation,
            run_id=f"run-{self.runs}",
            lineage={"commit": "abc123", "image": "millrace@sha256:0"},
        )

    def publish(self, model: Path, version: int) -> Path:
        return publish(
            project=self.project,
            workspace=self.workspace,
            data=self.root / "data",
            test=self.test,
            model=model,
            statistics=self.statistics,
            evaluation=self.evaluation,
            version=version,
        )

    def crown(self, skill: float) -> Path:
        """Take a model all the way to champion."""
        model = self.model(skill)
        assert self.evaluate(model).outcome == "blessed"
        self.publish(model, self.register(model))
        return model


def write_reference(project: Project, folder: Path, change: Callable[[np.ndarray], np.ndarray] = lambda scores: scores) -> None:
    rows = some_rows(120, 3)
    with load_model(Model(folder).saved_model) as model:
        answers = answer_rows(model, project, rows)
    expected = {
        "expected/label": pa.array([name.decode() for name in answers["label"]]),
        "expected/confidence": pa.array(answers["confidence"]),
        "expected/scores": pa.array(list(change(answers["scores"]))),
    }
    pq.write_table(pa.table({**{name: rows[name] for name in rows.column_names}, **expected}), Model(folder).reference)


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path)


def aliases(room: Room) -> dict[str, int]:
    rows = registry.list_versions(room.workspace, "cards")
    return {alias: row["version"] for row in rows for alias in row["aliases"].split(", ") if alias}


def test_the_first_model_is_held_against_the_baseline_and_everything_is_written_down(room: Room) -> None:
    verdict = room.evaluate(
        room.model(0.9), slices=[{"column": "team", "min_rows": 100, "max_drop": 0.05}], guards=[{"metric": "macro_f1"}]
    )
    assert verdict.outcome == "blessed"
    assert verdict.opponent.name == "the baseline 'most frequent class'"
    rows = pq.read_table(room.test / "test.parquet")
    assert verdict.checks[0].opponent == pytest.approx(pc.mean(pc.equal(rows["category"], "rail").cast(pa.float64())).as_py())
    written = Evaluation(room.evaluation)
    assert from_json(written.verdict.read_text()) == verdict
    assert json.loads(written.verdict.read_text())["metrics"]["accuracy"] == pytest.approx(verdict.checks[0].challenger.value)  # type: ignore[union-attr]
    predictions = pq.read_table(written.predictions)
    right = pc.mean(pc.equal(predictions["true"], predictions["predicted/label"]).cast(pa.float64())).as_py()
    assert right == pytest.approx(verdict.metrics["accuracy"])
    assert {check.slice: check.passed for check in verdict.checks if check.check == "slice"} == {
        "team=fleet": True,
        "team=schools": True,
        "team=parks": None,
    }
    assert json.loads(written.curves.read_text())["confusion_matrix"]["classes"] == ["rail", "food", "fuel"]
    assert "<h1>cards</h1>" in written.report.read_text()


def test_a_model_that_is_not_better_is_rejected_entered_as_a_run_and_never_registered(room: Room) -> None:
    room.crown(0.9)
    worse = room.model(0.7)
    verdict = room.evaluate(worse)
    assert verdict.outcome == "rejected"
    assert verdict.opponent.name == "champion version 1"
    assert verdict.checks[0].difference is not None
    assert verdict.checks[0].difference.value == pytest.approx(-0.2, abs=0.05)
    with pytest.raises(ModelRejected, match="Only a blessed model is registered"):
        room.register(worse)
    assert [row["version"] for row in registry.list_versions(room.workspace, "cards")] == [1]
    first, second = registry.compare_runs(room.workspace, ["run-1", "run-2"])
    assert (first["outcome"], second["outcome"]) == ("blessed", "rejected")
    assert first["param training.parameters.width"] == "8"
    assert second["test accuracy"] == pytest.approx(verdict.metrics["accuracy"])
    assert second["train seconds"] == 12.5


def test_the_champion_itself_is_unchanged_and_not_a_rejection(room: Room) -> None:
    model = room.crown(0.9)
    verdict = room.evaluate(model)
    assert verdict.outcome == "unchanged"
    assert not verdict.blessed
    assert verdict.title.startswith("Unchanged: this model answers every test row as champion version 1 does")


def test_a_training_run_again_that_answers_the_same_is_unchanged(room: Room) -> None:
    room.crown(0.9)
    again = room.root / "models" / "trained again"
    export_model(Model(again).saved_model, 0.9)
    (Model(again).saved_model / "fingerprint.pb").write_bytes(b"other bytes, same answers")
    assert room.evaluate(again).outcome == "unchanged"


def reusing(room: Room, skill: float) -> Path:
    """A model that reuses version 1's training, in a room whose project says so."""
    room.project = room.project.model_copy(update={"training": room.project.training.model_copy(update={"reuse": 1})})
    folder = room.root / "models" / f"reusing-{skill}"
    shutil.copytree(room.model(skill), folder)
    (Model(folder).saved_model / "index.pb").write_bytes(b"other labels are looked up")
    write_json(Model(folder).training, {"epochs_run": 0, "reused": {"version": 1, "data_hash": "d" * 64}})
    return folder


def test_labels_that_enter_without_training_make_a_version_also_where_no_sealed_answer_changes(room: Room) -> None:
    room.crown(0.9)
    same_rows = reusing(room, 0.9)
    assert room.evaluate(same_rows).outcome == "unchanged"
    write_json(room.root / "data/manifest.json", {"content_hash": "e" * 64, "rows": {"train": 905, "validation": 100}})
    verdict = room.evaluate(same_rows)
    assert verdict.outcome == "blessed"
    assert verdict.checks[0].rule.startswith("not worse: interval above −0.005")
    assert verdict.facts["training"] == f"none: that of version 1 (data {'d' * 12}), with the labels of these rows"
    room.publish(same_rows, room.register(same_rows))
    newest, oldest = registry.list_versions(room.workspace, "cards")
    assert (newest["trained as"], oldest["trained as"]) == ("1", "1")
    assert (newest["data"], oldest["data"]) == ("e" * 12, "d" * 12)


def test_labels_that_make_the_answers_worse_are_rejected(room: Room) -> None:
    room.crown(0.9)
    worse = reusing(room, 0.8)
    write_json(room.root / "data/manifest.json", {"content_hash": "e" * 64, "rows": {"train": 905, "validation": 100}})
    assert room.evaluate(worse).outcome == "rejected"


def test_what_a_training_left_is_found_again_in_the_registry_and_its_absence_is_told(room: Room) -> None:
    room.crown(0.7)
    first = registry.version_of(room.workspace, "cards", 1)
    with pytest.raises(ConfigError, match=r"no finish\(\)"):
        trained_files(room.workspace, first)
    better = room.model(0.9)
    Model(better).trained.mkdir()
    write_json(Trained(Model(better).trained).facts, {"weights": "of the second"})
    room.evaluate(better)
    room.register(better)
    kept = trained_files(room.workspace, registry.version_of(room.workspace, "cards", 2))
    assert "of the second" in Trained(kept).facts.read_text()


def test_a_version_carries_its_lineage_and_the_aliases_move(room: Room) -> None:
    room.crown(0.7)
    better = room.model(0.9)
    room.evaluate(better)
    version = room.register(better)
    assert aliases(room) == {"champion": 1, "challenger": 2}
    room.publish(better, version)
    assert aliases(room) == {"champion": 2, "previous": 1}
    champion = registry.champion_of(room.workspace, "cards")
    assert champion is not None
    assert {
        "data_hash": "d" * 64, "test_hash": "5" * 64, "parent_version": "1", "run_id": "run-2", "lineage.commit": "abc123",
        "lineage.image": "millrace@sha256:0", "team": "finance",
    }.items() <= champion.tags.items()  # fmt: skip
    assert json.loads(champion.tags["parameters"]) == {"epochs": 3, "parameters": {"width": 8}}
    assert champion.tags["verdict"].startswith("Blessed: accuracy 0.9")
    assert registry.list_models(room.workspace)[0]["champion"] == 2
    kept = registry.model_files(room.workspace, champion)
    assert kept == room.store / "cards" / "2"
    shutil.rmtree(kept)
    assert (registry.model_files(room.workspace, champion) / "saved_model.pb").is_file()


def test_registering_twice_gives_one_version(room: Room) -> None:
    model = room.model(0.9)
    room.evaluate(model)
    assert room.register(model) == room.register(model) == 1
    room.evaluate(model)  # another run of the same model that was never published
    assert room.register(model) == 1


def test_a_published_version_has_the_model_and_requests_with_their_answers(room: Room) -> None:
    model = room.crown(0.9)
    folder = room.store / "cards" / "1"
    golden = [json.loads(line) for line in (folder / GOLDEN_REQUESTS).read_text().splitlines()]
    assert len(golden) == 7
    assert golden[0]["outputs"]["label"] in CLASSES
    assert max(golden[0]["outputs"]["scores"]) == golden[0]["outputs"]["confidence"]
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    logs = [
        prediction_log_pb2.PredictionLog.FromString(record.numpy()) for record in tf.data.TFRecordDataset(str(folder / WARMUP_REQUESTS))
    ]
    assert len(logs) == 7
    request = logs[0].predict_log.request
    assert (request.model_spec.name, request.model_spec.signature_name) == ("cards", "serving_default")
    with load_model(folder) as served:
        answer = served.ask({name: tf.make_ndarray(value) for name, value in request.inputs.items()})
    assert answer["label"][0].decode() == golden[0]["outputs"]["label"]
    assert room.publish(model, 1) == folder
    with pytest.raises(Conflict, match="never changes"):
        room.publish(room.model(0.5), 1)


def test_a_published_version_carries_what_monitor_and_review_go_by(room: Room) -> None:
    project = a_project(floor=0.6)
    merchant = some_rows(900, 1)["merchant"].value_counts().to_pylist()
    often = max(merchant, key=lambda entry: entry["counts"])
    monitor = project.monitor.model_copy(update={"slices": ["merchant"], "min_rows": often["counts"]})
    reviewed = ReviewSettings(capacity=40, random=0.5)
    room.project = project.model_copy(update={"monitor": monitor, "review": reviewed})
    model = room.model(0.9)
    assert room.evaluate(model, floor=0.6).blessed
    reference = read_reference(room.publish(model, room.register(model)))
    assert of_model(room.store, "cards") == reviewed
    assert set(reference.features) == {"merchant", "amount"}
    assert reference.features["amount"].missing == some_rows(900, 1)["amount"].null_count
    assert {"label", "confidence"} <= set(reference.outputs)
    answered = reference.outputs["label"].texts
    assert answered is not None
    given = pq.read_table(Evaluation(room.evaluation).predictions)["predicted/label"].value_counts().to_pylist()
    assert dict(answered.counts) == {entry["values"]: entry["counts"] for entry in given}
    assert {piece: columns["amount"].rows for piece, columns in reference.slices.items()}[f"merchant={often['values']}"] == often["counts"]
    assert (reference.settings.floor, reference.settings.task, reference.settings.drift) == (0.6, "classification", 0.12)


def test_old_versions_leave_the_store_but_not_the_champion_or_the_one_before(room: Room) -> None:
    for skill in (0.6, 0.7, 0.8, 0.9):
        room.crown(skill)
    assert versions(room.store, "cards") == [3, 4]
    assert len(registry.list_versions(room.workspace, "cards")) == 4


def test_publishing_again_spares_the_version_before_the_champion(room: Room) -> None:
    room.crown(0.7)
    champion = room.crown(0.8)
    room.project = room.project.model_copy(update={"deployment": room.project.deployment.model_copy(update={"keep_versions": 1})})
    room.publish(champion, 2)
    assert versions(room.store, "cards") == [1, 2]
    assert aliases(room) == {"champion": 2, "previous": 1}


def test_canaries_push_neither_the_champion_nor_the_one_before_out_of_the_store(room: Room) -> None:
    for skill in (0.6, 0.7):
        room.crown(skill)
    room.project = room.project.model_copy(
        update={"deployment": room.project.deployment.model_copy(update={"keep_versions": 1, "track": "canary"})}
    )
    for skill in (0.8, 0.9):
        room.crown(skill)
    assert aliases(room) == {"champion": 2, "previous": 1, "challenger": 4}
    assert versions(room.store, "cards") == [1, 2, 4]


def test_a_model_that_no_server_could_restore_is_refused_and_not_published(room: Room) -> None:
    model = room.root / "models" / "keras"
    export_keras_model(Model(model).saved_model, holds="the variables")
    write_reference(room.project, model)
    shutil.rmtree(Model(model).saved_model)
    export_keras_model(Model(model).saved_model, holds="the model")
    with pytest.raises(ModelRejected, match=r"cannot be served: Could not find variable .*keras#20095.* module.weights = .*`millrace run`"):
        room.publish(model, 1)
    assert versions(room.store, "cards") == []
    assert tree(room.store) == ["cards/.lock"]
    with pytest.raises(ModelRejected, match="cannot be served"):
        room.evaluate(model)


def test_what_is_no_saved_model_is_refused_with_the_next_command(room: Room) -> None:
    model = room.root / "models" / "broken"
    Model(model).saved_model.mkdir(parents=True)
    (Model(model).saved_model / "saved_model.pb").write_bytes(b"no graph")
    with pytest.raises(ConfigError, match=r"no SavedModel that can be loaded.*millrace run --no-cache"):
        room.evaluate(model)


def test_a_model_that_answers_differently_once_exported_is_not_published(room: Room) -> None:
    model = room.model(0.9)
    room.evaluate(model)
    version = room.register(model)
    write_reference(
        room.project, model, lambda scores: scores + np.eye(3)[[0] * len(scores)] * 5e-5 * (np.arange(len(scores)) == 7)[:, None]
    )
    with pytest.raises(ModelRejected, match=r"'scores' in 1 of 120 rows .*r3-7") as error:
        room.publish(model, version)
    assert error.value.report[2]["differing"] == 1
    assert versions(room.store, "cards") == []
    assert aliases(room) == {"challenger": 1}
    assert tree(room.store) == ["cards/.lock"]


def test_a_test_set_that_is_not_the_sealed_one_is_refused(room: Room) -> None:
    write_json(room.test / "manifest.json", {"content_hash": "6" * 64})
    with pytest.raises(Conflict, match="666666666666, but 555555555555"):
        room.evaluate(room.model(0.9))
    assert not room.evaluation.exists()


def test_a_metric_of_another_task_is_refused_before_any_work(room: Room) -> None:
    with pytest.raises(ConfigError, match=r"evaluation.metric is 'rmse'"):
        room.evaluate(room.root / "no model is needed", metric="rmse")


def test_the_budget_stops_a_model_that_is_too_large_or_too_slow(room: Room) -> None:
    verdict = room.evaluate(room.model(0.9), budget={"size_mb": 0.001, "latency_ms": 0.0001})
    assert verdict.outcome == "rejected"
    assert [check.check for check in verdict.failures] == ["size", "latency"]


def test_a_champion_that_reads_a_column_which_is_no_feature_any_more_is_still_asked(room: Room) -> None:
    room.crown(0.7)
    values = json.loads(room.project.model_dump_json())
    values["context"]["amount"] = values["features"].pop("amount")
    room.project = parse_project(values, origin="project.yaml")
    verdict = room.evaluate(room.model(0.9))
    assert verdict.opponent.name == "champion version 1"
    assert verdict.outcome == "blessed"


PUBLISHER = """
    import os, sys
    from pathlib import Path
    from mlpipelines.errors import MillraceError
    from mlpipelines.project_file import from_json
    from mlpipelines.steps.publish import publish
    from mlpipelines.workspace import Workspace
    project, workspace, *paths = sys.argv[1:]
    data, test, model, statistics, evaluation = map(Path, paths)
    try:
        publish(
            project=from_json(project),
            workspace=Workspace(Path(workspace)),
            data=data,
            test=test,
            model=model,
            statistics=statistics,
            evaluation=evaluation,
            version=1,
        )
    except MillraceError as error:
        print(f"{type(error).__name__}: {error}")
        raise SystemExit(error.exit_code)
"""


def publisher(room: Room, model: Path, **how: Any) -> subprocess.Popen[str]:
    """`publish` in a process of its own."""
    from mlpipelines.project_file import to_json

    arguments = [
        to_json(room.project),
        *map(str, (room.workspace.root, room.root / "data", room.test, model, room.statistics, room.evaluation)),
    ]
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PUBLISHER), *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, **how
    )


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.slow
def test_a_full_disk_while_publishing_changes_nothing_that_is_published(room: Room) -> None:
    model = room.model(0.9)
    room.evaluate(model)
    room.register(model)
    (Model(model).saved_model / "assets/large.txt").write_text("x" * 3_000_000)

    def small_files_only() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

    process = publisher(room, model, preexec_fn=small_files_only)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == Unavailable.exit_code, said
    assert "Nothing was published" in said
    assert "The model store could not be written: File too large" in said
    assert versions(room.store, "cards") == []
    assert tree(room.store) == ["cards/.lock"]
    assert aliases(room) == {"challenger": 1}
    room.publish(model, 1)
    assert versions(room.store, "cards") == [1]


@pytest.mark.slow
@pytest.mark.parametrize("seen", ["saved_model.pb", GOLDEN_REQUESTS])
def test_a_publisher_that_is_killed_leaves_nothing_that_a_server_sees(room: Room, seen: str | Path) -> None:
    model = room.model(0.9)
    room.evaluate(model)
    room.register(model)
    for place in range(400):  # copying and flushing take their time
        (Model(model).saved_model / f"assets/{place}.txt").write_text("x" * 20_000)
    process = publisher(room, model)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None and not any(room.store.glob(f"cards/.1.*/{seen}")):
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert room.publish(model, 1) == room.store / "cards/1"
    assert aliases(room) == {"champion": 1}
    assert {path.name for path in (room.store / "cards").iterdir()} == {".lock", "1"}
    assert len((room.store / "cards/1" / GOLDEN_REQUESTS).read_text().splitlines()) == 7
