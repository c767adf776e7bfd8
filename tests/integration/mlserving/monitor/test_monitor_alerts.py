"""Every alert about what the monitor found, judged by the real promtool, and its names held against what the monitor really exports."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import alert_stories
from alert_stories import Story, alerts
from mlserving.monitor import judging, metrics

ROOT = Path(__file__).resolve().parents[4]
RULES = ROOT / "helm" / "model-serving" / "rules" / "monitor.yaml"
WHO = {"model": "cards", "version": "7", "track": "stable"}
WHOLE = {**WHO, "slice": ""}


def told(name: str, values: str, **labels: str) -> dict[str, str]:
    inner = ",".join(f'{label}="{value}"' for label, value in labels.items())
    return {f"millrace_monitor_{name}{{{inner}}}": values}


def column(name: str, values: str, column: str = "feature/amount", **labels: str) -> dict[str, str]:
    return told(name, values, **{**WHOLE, **labels}, column=column)


AMOUNT, LABEL = {**WHOLE, "column": "feature/amount"}, {**WHOLE, "column": "output/label"}
DAY = 86_400
STORIES = [
    Story(told="it drifts", alert="ModelFeatureDrift", series=column("drift_alarm", "0x5 1x60"), fires={25: AMOUNT}, silent=(5, 18)),
    Story(told="for one run", alert="ModelFeatureDrift", series=column("drift_alarm", "0x5 1x5 0x60"), silent=(9, 30)),
    Story(
        told="what a shadow is asked, and what a model answers",
        alert="ModelFeatureDrift",
        series={**column("drift_alarm", "1x60", track="shadow"), **column("drift_alarm", "1x60", column="output/label")},
        silent=(50,),
    ),
    Story(
        told="in one slice only",
        alert="ModelFeatureDrift",
        series={**column("drift_alarm", "0x60"), **column("drift_alarm", "1x60", slice="team=parks")},
        fires={30: {**AMOUNT, "slice": "team=parks"}},
    ),
    Story(told="answers", alert="ModelPredictionDrift", series=column("drift_alarm", "1x60", column="output/label"), fires={30: LABEL}),
    Story(told="a feature's", alert="ModelPredictionDrift", series=column("drift_alarm", "1x60"), silent=(50,)),
    Story(told="gone", alert="ModelMissingValues", series=column("missing_alarm", "0x5 1x60"), fires={30: AMOUNT}, silent=(4, 15)),
    Story(told="as ever", alert="ModelMissingValues", series=column("missing_alarm", "0x60"), silent=(50,)),
    Story(told="below", alert="ModelQualityLow", series=told("quality_alarm", "0x5 1x60", **WHOLE), fires={30: WHOLE}, silent=(5, 12)),
    Story(told="above", alert="ModelQualityLow", series=told("quality_alarm", "0x60", **WHOLE), silent=(50,)),
    Story(
        told="two days, one is allowed",
        alert="ModelLabelsLate",
        series={
            **told("label_lateness_seconds", f"{DAY / 2:.0f}x10 {2 * DAY}x120", **WHOLE),
            **told("label_delay_limit_seconds", f"{DAY}x130", **WHOLE),
        },
        value="2d 0h 0m 0s",
        fires={90: WHO},
        silent=(8, 60),
    ),
    Story(
        told="late, and nobody said how late they may be; a slice says nothing",
        alert="ModelLabelsLate",
        series={
            **told("label_lateness_seconds", f"{9 * DAY}x120", **WHOLE),
            **told("label_lateness_seconds", f"{9 * DAY}x120", **{**WHO, "slice": "team=parks"}),
            **told("label_delay_limit_seconds", f"{DAY}x120", **{**WHO, "slice": "team=parks"}),
        },
        silent=(110,),
    ),
    Story(
        told="two answers differ",
        alert="ModelParityBroken",
        series=told("parity_failures", "0x5 2x60", model="cards", version="7"),
        value="2",
        fires={20: {"model": "cards", "version": "7"}},
        silent=(5, 12),
    ),
    Story(told="all agree", alert="ModelParityBroken", series=told("parity_failures", "0x60", model="cards", version="7"), silent=(50,)),
    Story(
        told="the runs stopped",
        alert="ModelMonitorStale",
        series=told("last_run_timestamp_seconds", "0+60x60 3600x400", model="cards"),
        value="3h 20m 0s",
        fires={260: {"model": "cards"}},
        silent=(200, 240),
    ),
    Story(
        told="one in five minutes",
        alert="ModelMonitorStale",
        series=told("last_run_timestamp_seconds", "0+60x400", model="cards"),
        silent=(300, 390),
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


def test_every_alert_has_a_runbook_and_every_alarm_of_the_monitor_an_alert() -> None:
    assert {"ModelMonitorStale", *metrics.ALARMS} == alerts(RULES).keys()
    for name, rule in alerts(RULES).items():
        assert rule["annotations"]["runbook_url"] == f"docs/runbooks/{name}.md"
        assert (ROOT / "docs" / "runbooks" / f"{name}.md").read_text().startswith(f"# {name}\n")
    assert judging.PARITY_BROKEN in alerts(RULES)


def test_the_rules_speak_of_metrics_and_labels_that_the_monitor_declares() -> None:
    declared = {f"{metrics.PREFIX}{name}": set(labels) for name, _, labels in metrics.DECLARED}
    for rule in alerts(RULES).values():
        used = re.findall(r"(millrace_monitor_\w+)(?:\{([^}]*)\})?", rule["expr"])
        assert used
        for name, selector in used:
            assert name in declared
            assert {*re.findall(r"(\w+)[=!]", selector)} <= declared[name]
        for names in re.findall(r"by \(([^)]*)\)", rule["expr"]):
            assert {*names.split(", ")} <= set.union({"namespace"}, *(declared[name] for name, _ in used))  # which whoever scrapes adds


def test_what_may_start_a_training_tells_its_namespace() -> None:
    """By it, the Prometheus operator's Alertmanager knows whose route an alert is for."""
    signalling = [rule for rule in alerts(RULES).values() if "signal" in rule["labels"]]
    assert len(signalling) == 3
    assert all("by (namespace, " in rule["expr"] for rule in signalling)
