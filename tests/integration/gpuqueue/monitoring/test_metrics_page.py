"""What promtool thinks of the page that a scrape gets: names, units, kinds and help."""

from __future__ import annotations

import subprocess

import pytest
from prometheus_client import Counter, Gauge, Histogram

import binaries
from gpuqueue.metrics import Metrics

pytestmark = pytest.mark.prometheus


def test_promtool_has_nothing_to_say_about_our_metrics() -> None:
    metrics = Metrics()
    for metric, declared in zip(metrics._all, metrics.contract, strict=True):
        match metric.labels(*declared.labels) if declared.labels else metric:
            case Gauge() as gauge:
                gauge.set(1)
            case Counter() as counter:
                counter.inc()
            case Histogram() as histogram:
                histogram.observe(1)
    command = [str(binaries.paths(["promtool"])["promtool"]), "check", "metrics"]
    checked = subprocess.run(command, input=metrics.page(), capture_output=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
