"""What decisions rest on: counted from real labels and reviews, and never guessed when somebody does not answer."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client import generate_latest

import prediction_rows as rows
import review_cases as review
from kubeflow_api import KubeflowApi, kubeflow_api
from mlpipelines.errors import Unavailable
from mlpipelines.kubeflow import Kubeflow
from mlpipelines.triggers.facts import OLDEST, Known, Sources, count_labels
from mlpipelines.triggers.kubeflow_runs import KubeflowRuns
from mlpipelines.triggers.ledger import Ledger
from mlpipelines.triggers.metrics import Metrics
from mlpipelines.triggers.projects import Projects
from mlpipelines.triggers.reviewers import Reviewers
from mlpipelines.workspace import Workspace
from mlserving.database import open_database
from mlserving.predictions.label_journal import JOURNAL, Journal
from mlserving.review.cases import Person, Verdict
from mlserving.review.queue import ReviewQueue
from mlserving.review.tables import Database

PROJECT = """
name: {name}
team: growth
task: classification
source: {{kind: parquet, path: rows}}
features: {{pages: integer}}
label: {{column: left}}
retraining: {{min_new_labels: 3, corrections: 0.2}}
"""
IMAGE = "registry.example/steps@sha256:" + "a" * 64


@pytest.fixture
def api() -> Iterator[KubeflowApi]:
    with kubeflow_api() as served:
        yield served


class World:
    """Two projects, a cluster, and a clock that a test turns."""

    def __init__(self, api: KubeflowApi, root: Path) -> None:
        self.api, self.root, self.now = api, root, 1_000.0
        for name in ("churn", "scam"):
            self.write(name, PROJECT.format(name=name))
        projects = Projects(root / "projects")
        runs = KubeflowRuns(Kubeflow(api.host, seconds=(1.0, 1.0)), projects, IMAGE, Workspace(root / "w"))
        ledger = Ledger(open_database(f"sqlite:///{root}/serving.db"))
        sources = Sources(projects=projects, runs=runs, ledger=ledger, labels=lambda _model, since, _most: 7 if since is None else 1)
        self.known = Known(sources, clock=lambda: self.now)

    def write(self, name: str, text: str) -> None:
        (self.root / "projects" / name).mkdir(parents=True, exist_ok=True)
        (self.root / "projects" / name / "project.yaml").write_text(text)

    def run_by_hand(self, state: str) -> None:
        place = self.api.make_experiment({"display_name": "churn"})["experiment_id"]
        self.api.make_run({"display_name": "by hand", "experiment_id": place})["state"] = state


@pytest.fixture
def world(api: KubeflowApi, tmp_path: Path) -> World:
    return World(api, tmp_path)


def test_a_look_finds_somebody_else_s_run_and_what_came_since_the_last_training(world: World) -> None:
    world.known.look()
    assert (world.known.facts("churn").open_run, world.known.facts("churn").new_labels) == ("", 7)
    world.run_by_hand("RUNNING")
    world.known.look()
    assert world.known.facts("churn").open_run == "by hand"
    assert world.known.facts("scam").open_run == ""
    world.api.end("SUCCEEDED")
    world.known.look()
    assert (world.known.facts("churn").open_run, world.known.facts("churn").new_labels) == ("", 1)


def test_what_is_not_known_is_not_nothing(world: World) -> None:
    world.api.down = True
    world.known.look()
    with pytest.raises(Unavailable, match="answers 503"):
        world.known.facts("churn")
    assert world.known.facts("nobody").policy is None  # a model that nobody trains needs no cluster


def test_a_look_that_fails_leaves_the_one_before_for_some_minutes(world: World) -> None:
    world.known.look()
    world.api.down = True
    world.now += OLDEST - 1
    world.known.look()
    assert world.known.facts("churn").policy is not None
    world.now += 2
    with pytest.raises(Unavailable, match="s old"):
        world.known.facts("churn")
    world.api.down = False
    world.known.look()
    assert world.known.facts("churn").policy is not None


def test_a_project_that_is_broken_leaves_the_others_as_they_were(world: World) -> None:
    world.known.look()
    world.write("scam", PROJECT.format(name="scam") + "nonsense: 1\n")
    world.known.look()
    assert "nonsense" in world.known.troubles[""]
    world.write("scam", PROJECT.format(name="scam"))
    world.known.look()
    assert not world.known.troubles


def test_a_project_that_is_taken_away_is_forgotten(world: World) -> None:
    metrics = Metrics()
    for look in world.known.look().values():
        metrics.looked_at(look)
    (world.root / "projects" / "scam" / "project.yaml").unlink()
    looks = world.known.look()
    metrics.only(looks)
    assert list(looks) == ["churn"]
    assert world.known.facts("scam").policy is None
    told = generate_latest(metrics.registry).decode()
    assert 'model="churn"' in told
    assert 'model="scam"' not in told


def test_labels_are_counted_once_for_each_prediction_from_files_and_from_what_is_no_file_yet(tmp_path: Path) -> None:
    early, late = rows.NOON.timestamp(), (rows.NOON + timedelta(minutes=90)).timestamp()
    rows.write_labels(tmp_path, [rows.a_label(n, minutes=60) for n in range(4)])
    rows.write_labels(tmp_path, [rows.a_label(n, "tools", minutes=120) for n in range(2, 8)])
    rows.write_labels(tmp_path, [rows.a_label(n, minutes=120, model="others") for n in range(50)])
    journal = Journal(tmp_path / "labels" / JOURNAL)
    journal.append([rows.a_label(99, minutes=180)])
    assert count_labels(tmp_path, "transactions", None, 1000) == 9
    assert count_labels(tmp_path, "transactions", early, 1000) == 9
    assert count_labels(tmp_path, "transactions", late, 1000) == 7
    assert count_labels(tmp_path, "transactions", None, 3) == 3
    assert count_labels(tmp_path / "not there", "transactions", None, 1000) == 0


def test_reviews_count_from_the_last_training_on(tmp_path: Path) -> None:
    (tmp_path / "projects").mkdir()
    (tmp_path / "projects" / "project.yaml").write_text(PROJECT.format(name=review.MODEL))
    url = f"sqlite:///{tmp_path}/serving.db"
    database = Database(url)
    queue, ann = ReviewQueue(database), Person("ann")
    review.filled(queue, [review.new_case(f"old-{n}") for n in range(10)])
    later = review.NOON + timedelta(days=1)
    review.filled(queue, [review.new_case(f"new-{n}") for n in range(10)], since=later, now=later)
    for _ in range(20):
        case = queue.claim(review.MODEL, ann, later)
        assert case is not None
        wrong = case.prediction_id in ("new-1", "new-2", "new-3", "new-4")
        queue.review(case.seat, ann, Verdict.CORRECT if wrong else Verdict.CONFIRM, "books" if wrong else None, later)
    reviewers = Reviewers(Projects(tmp_path / "projects"), url)
    everything, since = (reviewers.right_since(review.MODEL, at.timestamp()) for at in (review.NOON, later))
    assert everything is not None
    assert since is not None
    assert (everything.n, since.n) == (20, 10)
    assert since.value == pytest.approx(0.6)
    assert reviewers.right_since("nobody", 0.0) is None
