"""Which models may be trained again, and when."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlpipelines.errors import ConfigError
from mlpipelines.triggers.decide import Signal
from mlpipelines.triggers.projects import Projects

CHURN = """
name: churn
team: growth
task: classification
source: {kind: parquet, path: rows.parquet}
features: {pages: integer}
label: {column: left}
"""


def write(root: Path, name: str, more: str = "") -> None:
    (root / name).mkdir(parents=True, exist_ok=True)
    (root / name / "project.yaml").write_text(CHURN + more)


def test_a_project_s_own_words_are_the_policy(tmp_path: Path) -> None:
    write(tmp_path, "churn", "retraining: {signals: [drift], cooldown_hours: 2, budget: {runs: 3, days: 1}, min_new_labels: 50}")
    trained = Projects(tmp_path).named("churn")
    assert trained is not None
    policy = trained.policy
    assert (policy.signals, policy.cooldown, policy.budget_runs, policy.budget_period, policy.min_new_labels) == (
        frozenset({Signal.DRIFT}),
        7200.0,
        3,
        86_400.0,
        50,
    )


def test_every_signal_of_the_file_is_one_of_the_rule(tmp_path: Path) -> None:
    write(tmp_path, "churn")
    trained = Projects(tmp_path).named("churn")
    assert trained is not None
    assert trained.policy.signals == set(Signal) - {Signal.BY_HAND}  # which needs no leave


def test_a_changed_file_counts_at_once(tmp_path: Path) -> None:
    write(tmp_path, "churn")
    projects = Projects(tmp_path)
    write(tmp_path, "churn", "deployment: {model: leaving-customers}\n")
    assert projects.named("churn") is None
    assert projects.named("leaving-customers") is not None


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({}, "millrace new"),
        ({"a": "", "b": ""}, "both train 'churn'"),
        ({"a": "retraining: {signals: [rain]}\n"}, "retraining.signals.0"),
        ({"a": "retraining: {cooldown_hours: -1}\n"}, "retraining.cooldown_hours"),
    ],
)
def test_what_cannot_be_meant_is_named(tmp_path: Path, files: dict[str, str], told: str) -> None:
    for name, more in files.items():
        write(tmp_path, name, more)
    with pytest.raises(ConfigError, match=told):
        Projects(tmp_path)
