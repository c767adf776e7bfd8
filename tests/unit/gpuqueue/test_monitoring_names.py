"""Rules, dashboard, runbooks and the metrics contract speak of the same things."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from gpuqueue.metrics import Metrics
from gpuqueue.queue import Reason

ROOT = Path(__file__).resolve().parents[3]
CHART = ROOT / "helm" / "gpu-queue"
RUNBOOKS = ROOT / "docs" / "runbooks"
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((CHART / "rules" / "gpu-queue.yaml").read_text())["groups"] for rule in group["rules"]
]
DASHBOARD = json.loads((CHART / "dashboards" / "gpu-queue.json").read_text())
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]
PAGES = sorted(path for path in RUNBOOKS.glob("GpuQueue*.md"))
COMMANDS = {"why", "queue", "eta", "what-if", "plan", "usage", "doctor", "export"}
SECTIONS = ["What it means", "What people feel", "How to look", "How to mend", "How to know"]


def named(text: str) -> set[str]:
    return set(re.findall(r"\bgpuqueue_\w+", text))


def test_every_metric_that_a_rule_or_the_dashboard_asks_for_is_declared() -> None:
    declared = {series for metric in Metrics().contract for series in metric.series}
    asked = named(" ".join([*(rule["expr"] for rule in RULES), *QUERIES]))
    assert asked - declared == set()
    assert len(asked) > 20, "the pattern finds them"


def test_every_metric_is_looked_at_by_somebody_or_was_meant_for_queries_by_hand() -> None:
    seen = named(" ".join([*(rule["expr"] for rule in RULES), *QUERIES, *(page.read_text() for page in PAGES)]))
    unseen = {metric.name for metric in Metrics().contract if not seen & {metric.name, *metric.series}}
    assert unseen == {"gpuqueue_ledger_writes_total", "gpuqueue_told_total"}


def test_labels_that_queries_group_by_are_declared_or_the_scrapes() -> None:
    declared = {label for metric in Metrics().contract for label in metric.labels} | {"instance", "le"}
    grouped = re.findall(r"\b(?:by|on) \(([^)]*)\)", " ".join([*(rule["expr"] for rule in RULES), *QUERIES]))
    assert {label.strip() for labels in grouped for label in labels.split(",")} <= declared


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    assert {page.stem for page in PAGES} == {rule["alert"] for rule in RULES}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_says_how_bad_it_is_what_to_type_and_where_to_read_on(rule: dict[str, Any]) -> None:
    said = rule["annotations"]
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert said["runbook_url"] == f"docs/runbooks/{rule['alert']}.md"
    assert re.search(r"\b(gpuq|kubectl) [a-z]", said["description"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_runbook_answers_the_same_questions_in_the_same_order(page: Path) -> None:
    text = page.read_text()
    assert text.startswith(f"# {page.stem}\n")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == SECTIONS


@pytest.mark.parametrize("text", [CHART / "rules" / "gpu-queue.yaml", *PAGES], ids=lambda path: path.stem)
def test_only_commands_that_there_are_get_recommended(text: Path) -> None:
    assert set(re.findall(r"\bgpuq ([a-z-]+)", text.read_text())) <= COMMANDS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_reasons_that_a_runbook_quotes_are_reasons_that_people_see(page: Path) -> None:
    quoted = set(re.findall(r"reason `(\w+)`", page.read_text()))
    assert quoted <= {reason.value for reason in Reason}
