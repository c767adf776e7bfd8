"""Every alert about reviewing, judged by the real promtool, and its names held against what the page really tells."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

import alert_stories
from alert_stories import Story, alerts
from mlserving.review import metrics

ROOT = Path(__file__).resolve().parents[4]
CHART = ROOT / "helm" / "model-serving"
RULES = CHART / "rules" / "review.yaml"
CARDS = {"model": "cards"}
PAGE = {"namespace": "fraud", "job": "fraud/cards-review"}
HOUR, DAY = 3600, 86_400
SECTIONS = ["What it means", "What people feel", "How to look", "How to mend", "How to know"]


def told(name: str, values: str, **labels: str) -> dict[str, str]:
    inner = ",".join(f'{label}="{value}"' for label, value in labels.items())
    return {f"millrace_review_{name}{{{inner}}}": values}


def of(name: str, values: str, pod: str = "a") -> dict[str, str]:
    return told(name, values, **CARDS, pod=pod)


STORIES = [
    Story(
        told="it is gone for every page",
        alert="ReviewDatabaseDown",
        series={**told("database_up", "1x5 0x30", **PAGE, pod="a"), **told("database_up", "1x5 0x30", **PAGE, pod="b")},
        fires={15: PAGE},
        silent=(5, 9),
    ),
    Story(
        told="one page of two does not reach it",
        alert="ReviewDatabaseDown",
        series={**told("database_up", "0x30", **PAGE, pod="a"), **told("database_up", "1x30", **PAGE, pod="b")},
        silent=(25,),
    ),
    Story(
        told="for twenty minutes",
        alert="ReviewLabelsStuck",
        series=of("label_lateness_seconds", "0x5 0+60x40"),
        value="25m 0s",
        fires={31: CARDS},
        silent=(10, 22),
    ),
    Story(told="for half a minute, as always", alert="ReviewLabelsStuck", series=of("label_lateness_seconds", "30x60"), silent=(50,)),
    Story(
        told="for a day",
        alert="ReviewOverdue",
        series={**of("overdue_reviews", "0x2 7x30"), **of("overdue_reviews", "0x2 7x30", pod="b")},
        value="7",
        fires={1740: CARDS},
        silent=(60, 1500),
        step=60,
    ),
    Story(
        told="they catch up within the day", alert="ReviewOverdue", series=of("overdue_reviews", "0x2 7x20 0x20"), silent=(2400,), step=60
    ),
    Story(
        told="it stopped",
        alert="ReviewFillStale",
        series={**of("last_fill_timestamp_seconds", "0x60"), **of("overdue_reviews", "0x60")},
        value="2d 2h 0m 0s",
        fires={50 * 60: CARDS},
        silent=(24 * 60, 48 * 60),
        step=60,
    ),
    Story(
        told="each day, and while people are behind",
        alert="ReviewFillStale",
        series={
            **of("last_fill_timestamp_seconds", f"0x24 {DAY}x24 {2 * DAY}x24"),
            **told("last_fill_timestamp_seconds", "0x72", model="loans"),
            **told("overdue_reviews", "3x72", model="loans"),
        },
        silent=(3000, 4200),
        step=60,
    ),
    Story(
        told="below",
        alert="ReviewAgreementLow",
        series={**of("agreement_alpha", "0.4x120"), **of("agreement_cases", "19x10 25x110")},
        value="400m",
        fires={90: CARDS},
        silent=(9, 60),
    ),
    Story(
        told="few cases, or good ones",
        alert="ReviewAgreementLow",
        series={
            **of("agreement_alpha", "0.1x120"),
            **of("agreement_cases", "5x120"),
            **told("agreement_alpha", "0.8x120", model="loans"),
            **told("agreement_cases", "50x120", model="loans"),
        },
        silent=(110,),
    ),
]


@pytest.mark.prometheus
@pytest.mark.parametrize("story", STORIES, ids=str)
def test_the_alert_fires_when_it_must_and_only_then_and_says_what_to_do(story: Story, tmp_path: Path) -> None:
    alert_stories.comes_true(RULES, story, tmp_path)


@pytest.mark.prometheus
def test_the_rules_are_as_prometheus_wants_them() -> None:
    alert_stories.are_well_formed(RULES)


def test_every_alert_has_a_story_in_which_it_fires_and_one_in_which_it_never_does() -> None:
    alert_stories.are_all_told(RULES, STORIES)


def test_the_rules_speak_of_metrics_and_labels_that_the_page_declares() -> None:
    declared = {f"{metrics.PREFIX}{name}" for name, _, _ in metrics.DECLARED}
    for rule in alerts(RULES).values():
        used = set(re.findall(r"millrace_review_\w+", rule["expr"]))
        assert used
        assert used <= declared
        assert set(re.findall(r"(?:by|on) \(([^)]*)\)", rule["expr"])) <= {"model", "namespace, job"}


@pytest.mark.parametrize("alert", alerts(RULES))
def test_every_alert_has_a_runbook_that_answers_the_same_questions(alert: str) -> None:
    said = alerts(RULES)[alert]["annotations"]
    assert said["runbook_url"] == f"docs/runbooks/{alert}.md"
    assert re.search(r"\b(millrace|kubectl) [a-z-]", said["description"])
    text = (ROOT / said["runbook_url"]).read_text()
    assert text.startswith(f"# {alert}\n")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == SECTIONS
    assert set(re.findall(r"millrace_review_(\w+)", text)) <= {name for name, _, _ in metrics.DECLARED}
    known = yaml.safe_load((CHART / "values.yaml").read_text())
    for path in re.findall(r"`((?:review|gateway|networkPolicy)\.[\w.]+)`", text):
        place = known
        for name in path.split("."):
            assert name in place, f"{alert}.md names {path}"
            place = place[name]


def test_every_runbook_of_reviewing_has_an_alert() -> None:
    assert {page.stem for page in (ROOT / "docs" / "runbooks").glob("Review*.md")} == alerts(RULES).keys()
