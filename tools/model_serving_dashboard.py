"""The Grafana dashboard of served models: which questions it answers (`grafana.py` makes the rest of it). `make generate` writes
`helm/model-serving/dashboards/model-serving.json`, `make verify` holds it, and a test asks each query of a real Prometheus.
"""

from __future__ import annotations

import sys
from pathlib import Path

from grafana import Choice, Panel, Row, dashboard, write

TARGET = Path(__file__).resolve().parent.parent / "helm" / "model-serving" / "dashboards" / "model-serving.json"
CHOSEN = 'model=~"$model"'
ROUTED = f'{CHOSEN}, track!=""'
FAILED = f'{ROUTED}, code=~"5..|INTERNAL|UNAVAILABLE|UNKNOWN|DEADLINE_EXCEEDED|ABORTED|DATA_LOSS"'
"""As in the alert ServingErrors."""
VERSION = "{{model}} {{track}} {{version}}"
WHO = "model, track, version"
COLUMN = f"{WHO}, slice, column"


def rate(metric: str, by: str, where: str = CHOSEN) -> str:
    """A counter's increase a second, over all gateways."""
    return f"sum by ({by}) (rate(millrace_{metric}{{{where}}}[$__rate_interval]))"


def gauge(metric: str, by: str, how: str = "max", where: str = CHOSEN) -> str:
    """A gauge over all gateways."""
    return f"{how} by ({by}) (millrace_{metric}{{{where}}})"


def quantile(share: float, metric: str, by: str, where: str = CHOSEN) -> str:
    """Below which value so large a share of a histogram lies."""
    return f"histogram_quantile({share}, {rate(f'{metric}_bucket', f'{by}, le', where)})"


ROWS = (
    Row(
        title="Who answers",
        panels=(
            Panel(title="Requests", queries={VERSION: rate("gateway_requests_total", WHO, ROUTED)}, unit="reqps", stacked=True),
            Panel(title="Weights", queries={"{{model}} {{track}}": gauge("gateway_track_weight", "model, track")}, unit="percent"),
            Panel(
                title="Servers that are up",
                queries={VERSION: f"count by ({WHO}) ({gauge('gateway_endpoint_up', f'{WHO}, endpoint')} > 0)"},
                about="That some gateway reaches.",
            ),
        ),
    ),
    Row(
        title="Rollouts",
        panels=(
            Panel(
                title="Phase",
                queries={"{{model}} {{rollout}} {{phase}}": f"{gauge('rollout_phase', 'model, rollout, phase')} == 1"},
                about="1 while it is in the phase. As the gateways' settings tell it.",
            ),
            Panel(
                title="Step, from 0, and how many there are",
                queries={
                    "{{model}} {{rollout}} step": gauge("rollout_step", "model, rollout"),
                    "{{model}} {{rollout}} steps": gauge("rollout_steps", "model, rollout"),
                },
            ),
            Panel(
                title="What the last look showed",
                queries={"{{model}} {{rollout}} {{verdict}}": f"{gauge('rollout_verdict', 'model, rollout, verdict')} == 1"},
                about="1 for ok, unclear or worse; nothing before a step's first look.",
            ),
            Panel(
                title="Since the weights last changed",
                queries={"{{model}}": f"time() - {gauge('gateway_weights_changed_timestamp_seconds', 'model')}"},
                about="Or since the youngest gateway began.",
                unit="s",
            ),
        ),
    ),
    Row(
        title="How well",
        panels=(
            Panel(
                title="Requests that fail",
                queries={VERSION: f"{rate('gateway_requests_total', WHO, FAILED)} / ({rate('gateway_requests_total', WHO, ROUTED)} > 0)"},
                unit="percentunit",
                alarm=0.01,
            ),
            Panel(
                title="An answer takes, half and 99 of 100",
                queries={f"{VERSION} {share:.0%}": quantile(share, "gateway_request_seconds", WHO) for share in (0.5, 0.99)},
                unit="s",
                alarm=1,
            ),
            Panel(
                title="Of that the gateway, half and 99 of 100",
                queries={
                    f"{{{{protocol}}}} {share:.0%}": quantile(share, "gateway_added_seconds", "protocol", "") for share in (0.5, 0.99)
                },
                unit="s",
                alarm=0.02,
            ),
            Panel(title="Under way", queries={"{{model}} {{track}}": gauge("gateway_in_flight", "model, track", "sum")}),
        ),
    ),
    Row(
        title="What it thinks",
        panels=(
            Panel(
                title="Confidence, median and lowest tenth",
                queries={f"{VERSION} {share:.0%}": quantile(share, "prediction_confidence", WHO) for share in (0.1, 0.5)},
                about="Of the predictions that are logged. A canary's should look like stable's.",
                unit="percentunit",
            ),
            Panel(
                title="Shares of the classes",
                queries={
                    f"{VERSION} {{{{class}}}}": f"{rate('prediction_class_total', f'{WHO}, class')} "
                    f"/ on ({WHO}) group_left () ({rate('prediction_class_total', WHO)} > 0)"
                },
                unit="percentunit",
            ),
            Panel(title="Labels that arrive", queries={"{{model}} {{source}}": rate("labels_total", "model, source")}, unit="ops"),
        ),
    ),
    Row(
        title="What the monitor finds",
        panels=(
            Panel(
                title="Drift, as a multiple of what alarms",
                queries={
                    f"{VERSION} {{{{column}}}}": f"topk(10, max by ({WHO}, column) "
                    f"({gauge('monitor_drift_distance', COLUMN)} / ({gauge('monitor_drift_threshold', COLUMN)} > 0)))"
                },
                about="The ten columns that moved furthest, in the slice where they did. Above 1 it alarms, with rows enough.",
                alarm=1,
            ),
            Panel(
                title="Quality, and the lower end of its interval",
                queries={
                    f"{VERSION} {{{{metric}}}}": gauge("monitor_quality", f"{WHO}, metric", where=f'{CHOSEN}, slice=""'),
                    f"{VERSION} {{{{metric}}}} at least": gauge("monitor_quality_low", f"{WHO}, metric", where=f'{CHOSEN}, slice=""'),
                },
                about="From the labels of the window, all slices together.",
                unit="percentunit",
            ),
            Panel(
                title="Predictions with a label",
                queries={
                    VERSION: gauge("monitor_labelled_ratio", WHO, where=f'{CHOSEN}, slice=""'),
                    f"{VERSION} by a reviewer": gauge("monitor_reviewed_ratio", WHO, where=f'{CHOSEN}, slice=""'),
                },
                unit="percentunit",
            ),
            Panel(
                title="Golden requests that are answered otherwise",
                queries={"{{model}} {{version}}": gauge("monitor_parity_failures", "model, version")},
                alarm=1,
            ),
        ),
    ),
    Row(
        title="What people say",
        panels=(
            Panel(
                title="Reviews that wait, and those overdue",
                queries={
                    "{{model}} waiting": gauge("review_open_reviews", "model"),
                    "{{model}} overdue": gauge("review_overdue_reviews", "model"),
                },
            ),
            Panel(
                title="What people did",
                queries={
                    "{{model}} {{verdict}}": f"max by (model, verdict) (rate(millrace_review_reviews_total{{{CHOSEN}}}[$__rate_interval]))"
                },
                about="Every replica tells the same.",
                unit="ops",
            ),
            Panel(
                title="How often the model is right, on the whole log",
                queries={
                    "{{model}}": gauge("review_accuracy", "model"),
                    "{{model}} at least": gauge("review_accuracy_low", "model"),
                    "{{model}} at most": gauge("review_accuracy_high", "model"),
                },
                unit="percentunit",
            ),
            Panel(
                title="How far people agree",
                queries={"{{model}}": gauge("review_agreement_alpha", "model")},
                about="Krippendorff's alpha: 1 is always, 0 is by chance.",
            ),
        ),
    ),
    Row(
        title="What is wrong",
        panels=(
            Panel(
                title="Turned away, sent twice, answered by stable instead",
                queries={
                    "{{model}} {{code}}": rate("gateway_requests_total", "model, code", f'{CHOSEN}, track=""'),
                    "{{model}} {{track}} sent twice": rate("gateway_retries_total", "model, track"),
                    "{{model}} {{track}} by stable": rate("gateway_fallbacks_total", "model, track"),
                },
                unit="ops",
            ),
            Panel(
                title="Copies for the shadow", queries={"{{model}} {{outcome}}": rate("gateway_shadow_total", "model, outcome")}, unit="ops"
            ),
            Panel(
                title="Log: spooled, written, lost",
                queries={
                    "{{model}} spooled": rate("gateway_spooled_total", "model"),
                    "{{model}} written": rate("predictions_logged_total", "model"),
                    "lost by the gateway, {{reason}}": rate("gateway_spool_dropped_total", "reason", ""),
                    "{{model}} lost by the recorder, {{reason}}": rate("predictions_dropped_total", "model, reason"),
                },
                unit="ops",
            ),
            Panel(
                title="Settings that cannot be read, recorders that died",
                queries={
                    "{{instance}} settings": "1 - millrace_gateway_config_valid",
                    "{{instance}} recorder": "increase(millrace_gateway_recorder_restarts_total[$__rate_interval])",
                },
                alarm=1,
            ),
        ),
    ),
)


def main() -> int:
    """Write the file that the chart ships."""
    model = Choice(name="model", label="Model", metric="millrace_gateway_track_weight")
    write(TARGET, dashboard(uid="model-serving", title="Served models", rows=ROWS, choices=[model]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
