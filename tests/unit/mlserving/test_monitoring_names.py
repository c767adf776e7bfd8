"""Rules, dashboard, runbooks and chart speak of the same things."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlserving.monitor import metrics as monitor_metrics
from mlserving.review import metrics as review_metrics

ROOT = Path(__file__).resolve().parents[3]
CHART = ROOT / "helm" / "model-serving"


def rules_of(file: Path) -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"]]


RULES = rules_of(CHART / "rules" / "model-serving.yaml")
OF_THE_TRIGGER = {rule["alert"] for rule in rules_of(ROOT / "helm" / "retraining" / "rules" / "retraining.yaml")}
DASHBOARD = json.loads((CHART / "dashboards" / "model-serving.json").read_text())
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]
PAGES = sorted(
    page for kind in ("Serving", "Rollout") for page in (ROOT / "docs" / "runbooks").glob(f"{kind}*.md") if page.stem not in OF_THE_TRIGGER
)
SECTIONS = ["What it means", "What people feel", "How to look", "How to mend", "How to know"]
SOURCES = "\n".join(path.read_text() for path in sorted((ROOT / "serving" / "src" / "mlserving").rglob("*.py")))


def named(text: str) -> set[str]:
    return {re.sub("_bucket$", "", name) for name in re.findall(r"\bmillrace_\w+", text)}


def test_every_metric_that_is_asked_for_is_one_that_somebody_tells() -> None:
    asked = named(" ".join([*(rule["expr"] for rule in RULES), *QUERIES, *(page.read_text() for page in PAGES)]))
    assert len(asked) > 15, "the pattern finds them"
    told = {f"{each.PREFIX}{name}" for each in (monitor_metrics, review_metrics) for name, _, _ in each.DECLARED}
    assert {name for name in asked - told if re.sub("_total$|_info$", "", name) not in SOURCES} == set()


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    assert {page.stem for page in PAGES} == {rule["alert"] for rule in RULES}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_says_how_bad_it_is_what_to_type_and_where_to_read_on(rule: dict[str, Any]) -> None:
    said = rule["annotations"]
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert said["runbook_url"] == f"docs/runbooks/{rule['alert']}.md"
    assert re.search(r"\b(millrace|kubectl|helm) [a-z-]", said["description"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_runbook_answers_the_same_questions_in_the_same_order(page: Path) -> None:
    text = page.read_text()
    assert text.startswith(f"# {page.stem}\n")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == SECTIONS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_values_that_a_runbook_names_are_values_of_the_chart(page: Path) -> None:
    known = yaml.safe_load((CHART / "values.yaml").read_text())
    for path in re.findall(r"`((?:tracks|gateway|server|networkPolicy|store|monitoring)\.[\w.]+)`", page.read_text()):
        place = known
        for name in path.replace("TRACK", "canary").split("."):
            assert name in place, f"{page.name} names {path}"
            place = place[name]
