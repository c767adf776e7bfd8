"""The chart and the controller mean the same labels, gate and condition: gpuqueue/labels.py has the names."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from gpuqueue import labels, quantities

CHART = Path(__file__).resolve().parents[3] / "helm" / "gpu-queue"
API_VERSION = f"{labels.DOMAIN}/v1"


def names_in(folder: str) -> set[str]:
    text = "\n".join(file.read_text() for file in sorted((CHART / folder).rglob("*.*")))
    return set(re.findall(rf"{re.escape(labels.DOMAIN)}/[\w-]+", text)) - {API_VERSION}


def test_the_policies_name_our_labels_gate_and_condition_and_no_others() -> None:
    assert names_in("templates") == {labels.MANAGED, labels.GATE, labels.CONDITION, labels.GROUP, labels.GROUP_SIZE, labels.RUN_LIMIT}


def test_the_kind_belongs_to_our_domain() -> None:
    text = (CHART / "crds" / "gpuqueues.yaml").read_text()
    assert f"name: gpuqueues.{labels.DOMAIN}\n" in text
    assert f"group: {labels.DOMAIN}\n" in text
    assert names_in("crds") == {labels.MANAGED}


def test_the_gate_stops_what_the_controller_counts() -> None:
    assert yaml.safe_load((CHART / "values.yaml").read_text())["gpuResources"] == [quantities.PREFIX]
