"""What a person reads of a plan fits the terminal, and says what is fetched, what it costs and what is missing."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mlplatform.environment import read_environment
from mlplatform.plan.order import plan
from mlplatform.plan.report import Difference, ReleaseWay, Report, as_json, report
from mlplatform.plan.steps import Step
from mlplatform.release import Standing, Way
from mlplatform.screen import plan_page

MLFLOW = Difference(words="1 changed", charts=("mlflow-0.2.0", "mlflow-0.3.0"), restarts=("Deployment mlflow/mlflow (2 pods)",))
UPGRADE = ReleaseWay(here="0.3.0", there=Standing(version="0.2.0"), way=Way.UPGRADE)
ENVIRONMENTS = Path(__file__).resolve().parents[3] / "platform" / "environments"


def made(name: str, differences: dict[str, Difference] | None = None, release: ReleaseWay | None = None) -> Report:
    environment = read_environment(ENVIRONMENTS / f"{name}.yaml")
    thing: list[Any] = [{"kind": "Deployment"}, {"kind": "Service"}, {"kind": "Service"}]
    found: list[tuple[Step, Any]] = [(step, None if step.fetched else thing) for step in plan(environment)]
    return report(environment, found, differences, release)


def drawn(found: Report, width: int) -> str:
    text = io.StringIO()
    Console(file=text, width=width, highlight=False).print(plan_page(found))
    return text.getvalue()


@pytest.mark.parametrize("width", [80, 100, 120])
@pytest.mark.parametrize("name", ["laptop", "gke-prod"])
def test_a_plan_fits_the_terminal(name: str, width: int) -> None:
    found = made(name, {"foundation": Difference(words="3 new, 1 changed")})
    lines = drawn(found, width).splitlines()
    assert max(map(len, lines)) <= width
    assert all(any(row.step.name in line for line in lines) for row in found.rows)


def test_a_plan_says_what_is_fetched_what_it_costs_and_what_is_missing() -> None:
    text = " ".join(drawn(made("gke-prod"), 120).split())
    assert "fetched at deployment: github.com/kubeflow/pipelines at 2.17.0" in text
    assert "1 Deployment, 2 Service" in text
    assert "A month in EUR" in text
    assert "Before it can be deployed images.digests.steps: " in text


def test_an_upgrade_says_from_where_to_where_what_changes_and_what_starts_anew() -> None:
    text = " ".join(drawn(made("laptop", {"mlflow": MLFLOW}, UPGRADE), 140).split())
    assert "upgrade of the cluster from release 0.2.0 to 0.3.0" in text
    assert "mlflow-0.2.0 → 0.3.0" in text
    assert "restarts Deployment mlflow/mlflow (2 pods)" in text
    assert "The cluster refuses" not in text


def test_what_the_cluster_refuses_stands_under_the_plan_with_its_step() -> None:
    refused = Difference(words="refused", refused=("StatefulSet databases/postgresql: Forbidden: updates to statefulset spec",))
    found = made("laptop", {"postgresql": refused}, UPGRADE)
    assert found.refused == ["postgresql: StatefulSet databases/postgresql: Forbidden: updates to statefulset spec"]
    assert "The cluster refuses postgresql: StatefulSet databases/postgresql" in " ".join(drawn(found, 100).split())


def test_a_plan_for_machines_is_json() -> None:
    told = json.loads(json.dumps(as_json(made("gke-prod", {"mlflow": MLFLOW}, UPGRADE))))
    assert told["release"] == {"here": "0.3.0", "there": "0.2.0", "under_way_to": None, "way": "upgrade"}
    steps = {step["name"]: step for step in told["steps"]}
    assert steps["mlflow"]["difference"] == "1 changed"
    assert steps["mlflow"]["chart"] == {"from": "mlflow-0.2.0", "to": "mlflow-0.3.0"}
    assert steps["mlflow"]["restarts"] == ["Deployment mlflow/mlflow (2 pods)"]
    assert steps["mlflow"]["objects"] == {"Deployment": 1, "Service": 2}
    assert steps["cert-manager"]["objects"] is None
    assert told["gpus"]["quotas"]["search"] == {"nvidia-l4": 8, "nvidia-tesla-a100": 8}
    assert told["cost"]["most"] > told["cost"]["least"] > 0
