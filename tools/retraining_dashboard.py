"""The Grafana dashboard of a model's loop: what is asked, what drifts, what is decided, which runs come of it, which version answers.

One board over gateway, monitor and trigger, for whoever is asked why a model was trained, or was not. `make generate` writes
`helm/retraining/dashboards/loop.json`, `make verify` holds it, and a test asks each query of a real Prometheus.
"""

from __future__ import annotations

import sys
from pathlib import Path

from grafana import Choice, Panel, Row, dashboard, write
from model_serving_dashboard import ROUTED, gauge, rate

TARGET = Path(__file__).resolve().parent.parent / "helm" / "retraining" / "dashboards" / "loop.json"
DRIFT = "model, version, track, slice, column"
ROWS = (
    Row(
        title="What is asked, and who answers",
        panels=(
            Panel(
                title="Requests by version",
                queries={"{{model}} {{track}} {{version}}": rate("gateway_requests_total", "model, track, version", ROUTED)},
                unit="reqps",
                stacked=True,
            ),
            Panel(title="Weights", queries={"{{model}} {{track}}": gauge("gateway_track_weight", "model, track")}, unit="percent"),
        ),
    ),
    Row(
        title="What the monitor finds",
        panels=(
            Panel(
                title="Drift, as a multiple of what alarms",
                queries={
                    "{{model}} {{column}}": f"topk(10, max by (model, column) "
                    f"({gauge('monitor_drift_distance', DRIFT)} / ({gauge('monitor_drift_threshold', DRIFT)} > 0)))"
                },
                alarm=1,
            ),
            Panel(
                title="Quality, and the floor",
                queries={
                    "{{model}} {{track}} {{metric}}": gauge("monitor_quality", "model, track, metric", where='model=~"$model", slice=""'),
                    "{{model}} floor": gauge("monitor_quality_floor", "model", where='model=~"$model", slice=""'),
                },
                unit="percentunit",
            ),
            Panel(
                title="Labels that arrive",
                queries={"{{model}} {{source}}": rate("labels_total", "model, source")},
                about="Too few new labels hold a training back.",
                unit="ops",
            ),
        ),
    ),
    Row(
        title="What is decided",
        panels=(
            Panel(
                title="Decisions in an hour",
                queries={
                    "{{model}} {{signal}}: {{reason}}": "sum by (model, signal, reason) "
                    '(increase(millrace_trigger_decisions_total{model=~"$model"}[1h]))'
                },
                about="Why each of them is a no: millrace why MODEL",
                stacked=True,
            ),
            Panel(
                title="Runs in a day, by how they ended",
                queries={
                    "{{model}} started": 'sum by (model) (increase(millrace_trigger_started_runs_total{model=~"$model"}[1d]))',
                    "{{model}} {{outcome}}": 'sum by (model, outcome) (increase(millrace_trigger_ended_runs_total{model=~"$model"}[1d]))',
                },
            ),
            Panel(
                title="Since the last training, as a share of when it is stale",
                queries={
                    "{{model}}": f"(time() - {gauge('trigger_last_training_timestamp_seconds', 'model')}) "
                    f"/ ({gauge('trigger_stale_after_seconds', 'model')} > 0)"
                },
                unit="percentunit",
                alarm=1,
            ),
        ),
    ),
    Row(
        title="What stands still",
        panels=(
            Panel(
                title="Runs that are wanted and not started, and those that go on",
                queries={"wanted": "max(millrace_trigger_wanted_runs)", "open": "max(millrace_trigger_open_runs)"},
            ),
            Panel(title="The last run failed", queries={"{{model}}": gauge("trigger_last_run_failed", "model")}, alarm=1),
            Panel(title="Notices that have not been sent", queries={"waiting": "max(millrace_trigger_waiting_notices)"}, alarm=10),
        ),
    ),
)


def main() -> int:
    """Write the file that the chart ships."""
    model = Choice(name="model", label="Model", metric="millrace_trigger_look_timestamp_seconds")
    write(TARGET, dashboard(uid="retraining-loop", title="The loop of a model", rows=ROWS, choices=[model]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
