"""Stories in which an alert fires or stays silent, judged by the real promtool: what people get is compared word for word."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

import binaries


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """Series in promtool's notation, a sample each `step` minutes, and at which minutes an alert with which labels fires or is silent."""

    told: str
    alert: str
    series: Mapping[str, str]
    fires: Mapping[int, Mapping[str, str]] = field(default_factory=dict)
    silent: tuple[int, ...] = ()
    value: str = ""
    """What people read where the alert tells its value."""

    step: int = 1
    """Minutes between samples, and between looks: days are long."""

    def __str__(self) -> str:
        return f"{self.alert}: {self.told}"


def alerts(rules: Path) -> dict[str, Any]:
    """The alerts of a rules file by name."""
    return {rule["alert"]: rule for group in yaml.safe_load(rules.read_text())["groups"] for rule in group["rules"] if "alert" in rule}


def comes_true(rules: Path, story: Story, folder: Path) -> None:
    """Hold that the alert fires when the story says so, and only then, and tells people what to do."""
    judged = _judged(rules, story, folder)
    assert judged.returncode == 0, judged.stdout + judged.stderr


def are_well_formed(rules: Path) -> None:
    """Hold that the rules are as Prometheus wants them."""
    checked = _promtool("check", "rules", "--lint=all", "--lint-fatal", str(rules))
    assert checked.returncode == 0, checked.stdout + checked.stderr


def are_all_told(rules: Path, stories: Sequence[Story]) -> None:
    """Hold that every alert has a story in which it fires and one in which it never does."""
    assert {story.alert for story in stories if story.fires} == alerts(rules).keys()
    assert {story.alert for story in stories if not story.fires} == alerts(rules).keys()


def _judged(rules: Path, story: Story, folder: Path) -> subprocess.CompletedProcess[str]:
    """What promtool says about one story."""
    rule = alerts(rules)[story.alert]
    moments: dict[int, list[dict[str, Any]]] = {minute: [] for minute in story.silent}
    moments |= {minute: [_expected(rule, story, labels)] for minute, labels in story.fires.items()}
    asked = [{"alertname": story.alert, "eval_time": f"{minute}m", "exp_alerts": found} for minute, found in moments.items()]
    series = [{"series": name, "values": values} for name, values in story.series.items()]
    case = {
        "rule_files": [str(rules)],
        "evaluation_interval": f"{story.step}m",
        "tests": [{"interval": f"{story.step}m", "input_series": series, "alert_rule_test": asked}],
    }
    (folder / "story.yaml").write_text(yaml.safe_dump(case))
    return _promtool("test", "rules", str(folder / "story.yaml"))


def _expected(rule: Mapping[str, Any], story: Story, labels: Mapping[str, str]) -> dict[str, Any]:
    """The alert as people get it, its templates filled in by hand."""

    def _where_there_is_one(found: re.Match[str]) -> str:
        return found[2].replace("{{ . }}", labels[found[1]]) if labels[found[1]] else ""

    def filled(text: str) -> str:
        text = re.sub(r"\{\{ with \$labels\.(\w+) \}\}(.*?)\{\{ end \}\}", _where_there_is_one, text)
        text = re.sub(r"\{\{ \$value[^}]*\}\}", story.value or "(say which value)", text)
        return re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda found: labels[found[1]], text)

    there = {name: value for name, value in labels.items() if value}  # to Prometheus a label without a value is none
    return {
        "exp_labels": {**rule["labels"], **there},
        "exp_annotations": {name: filled(text) for name, text in rule["annotations"].items()},
    }


def _promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    """One promtool command."""
    return subprocess.run([binaries.paths(["promtool"])["promtool"], *arguments], capture_output=True, text=True, check=False)
