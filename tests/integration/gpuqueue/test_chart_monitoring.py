"""What the chart renders to have the controller watched: nothing by default, and what was tested when asked."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

Helm = Callable[..., subprocess.CompletedProcess[str]]

CHART = Path(__file__).resolve().parents[3] / "helm" / "gpu-queue"
RULES = yaml.safe_load((CHART / "rules" / "gpu-queue.yaml").read_text())
SETTINGS = ("ConfigMap", "gpu-queue")
"""The controller's own ConfigMap."""
WATCHING = {"PrometheusRule", "Rules", "PodMonitor", "PodMonitoring", "ConfigMap"}


def rendered(helm: Helm, *settings: str) -> dict[str, Any]:
    """By kind, what of it watches."""
    result = helm(*(word for setting in settings for word in ("--set", f"monitoring.{setting}")))
    assert result.returncode == 0, result.stderr
    things = [thing for thing in yaml.safe_load_all(result.stdout) if thing and thing["kind"] in WATCHING]
    return {thing["kind"]: thing for thing in things if (thing["kind"], thing["metadata"]["name"]) != SETTINGS}


def test_nothing_is_watched_until_asked(helm: Helm) -> None:
    assert rendered(helm) == {}


@pytest.mark.parametrize(
    ("kind", "version"),
    [("PrometheusRule", "monitoring.coreos.com/v1"), ("Rules", "monitoring.googleapis.com/v1")],
    ids=["operator", "google"],
)
def test_the_rules_are_those_that_were_tested(helm: Helm, kind: str, version: str) -> None:
    rule = rendered(helm, "rules.enabled=true", f"rules.kind={kind}", "rules.labels.release=prometheus")[kind]
    assert rule["apiVersion"] == version
    assert rule["spec"] == RULES
    assert rule["metadata"] == {"name": "gpu-queue", "namespace": "gpu-queue", "labels": {"release": "prometheus"}}


def test_runbooks_can_be_read_elsewhere(helm: Helm) -> None:
    rule = rendered(helm, "rules.enabled=true", "rules.runbooks=https://docs.example.com/runbooks")["PrometheusRule"]
    urls = [alert["annotations"]["runbook_url"] for group in rule["spec"]["groups"] for alert in group["rules"]]
    assert {url.rpartition("/")[0] for url in urls} == {"https://docs.example.com/runbooks"}


@pytest.mark.parametrize(
    ("kind", "version", "endpoints"),
    [("PodMonitor", "monitoring.coreos.com/v1", "podMetricsEndpoints"), ("PodMonitoring", "monitoring.googleapis.com/v1", "endpoints")],
    ids=["operator", "google"],
)
def test_every_replica_is_scraped(helm: Helm, kind: str, version: str, endpoints: str) -> None:
    monitor = rendered(helm, "scrape.enabled=true", f"scrape.kind={kind}", "scrape.interval=15s")[kind]
    assert monitor["apiVersion"] == version
    assert monitor["spec"] == {
        "selector": {"matchLabels": {"app.kubernetes.io/name": "gpu-queue"}},
        endpoints: [{"port": "metrics", "path": "/metrics", "interval": "15s"}],
    }


def test_the_dashboard_is_where_the_sidecar_looks(helm: Helm) -> None:
    config = rendered(helm, "dashboard.enabled=true")["ConfigMap"]
    assert config["metadata"]["labels"] == {"grafana_dashboard": "1"}
    assert json.loads(config["data"]["gpu-queue.json"]) == json.loads((CHART / "dashboards" / "gpu-queue.json").read_text())


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("rules.enable=true", "additional properties 'enable' not allowed"),
        ("rules.kind=ClusterRules", "monitoring/rules/kind"),
        ("rules.runbooks=docs/runbooks", "monitoring/rules/runbooks"),
        ("rules.runbooks=https://docs.example.com/", "monitoring/rules/runbooks"),
        ("scrape.interval=30", "monitoring/scrape/interval"),
    ],
)
def test_a_setting_that_would_watch_nothing_is_refused(helm: Helm, setting: str, complaint: str) -> None:
    refused = helm("--set", f"monitoring.{setting}")
    assert refused.returncode != 0
    assert complaint in refused.stderr
