"""The Grafana dashboard of the GPU queue, from one description: rows of panels, each a question and the query that answers it.

Grafana's JSON says forty things for each panel that nobody decides; here is what somebody did. `make generate` writes
`helm/gpu-queue/dashboards/gpu-queue.json`, `make verify` holds it, and a test holds its queries to the metrics contract.
"""

from __future__ import annotations

import sys
from pathlib import Path

from grafana import Choice, Panel, Row, dashboard, write

TARGET = Path(__file__).resolve().parent.parent / "helm" / "gpu-queue" / "dashboards" / "gpu-queue.json"


def lanes(metric: str, by: str = "queue, lane") -> str:
    """A gauge of the chosen queues, over all replicas: only the leader speaks."""
    return f'max by ({by}) (gpuqueue_{metric}{{queue=~"$queue"}})'


def rate(metric: str, by: str, where: str = "") -> str:
    """A counter's increase a second, over all replicas."""
    return f"sum by ({by}) (rate(gpuqueue_{metric}{where}[$__rate_interval]))"


CHOSEN = '{queue=~"$queue"}'
LANE, QUEUE = "{{queue}}/{{lane}}", "{{queue}}"

ROWS = (
    Row(
        title="Who has the GPUs",
        panels=(
            Panel(
                title="Held", queries={LANE: lanes("granted_gpus")}, about="By each lane's ledger: foreign and lent ones too.", stacked=True
            ),
            Panel(
                title="Share of the quota held",
                queries={LANE: f"{lanes('granted_gpus')} / ({lanes('quota_gpus')} > 0)"},
                about="Above 1 after the quota was cut, or where foreign pods run: nothing is taken back.",
                unit="percentunit",
                alarm=1.01,
            ),
            Panel(
                title="Not waited for, borrowed, lent",
                queries={
                    f"{LANE} foreign": f"{lanes('foreign_gpus')} > 0",
                    f"{LANE} borrowed": f"{lanes('borrowed_gpus')} > 0",
                    f"{LANE} lent": f"{lanes('lent_gpus')} > 0",
                },
            ),
        ),
    ),
    Row(
        title="Who waits",
        panels=(
            Panel(
                title="Waiting, by reason",
                queries={"{{queue}}/{{lane}} {{reason}}": lanes("waiting_requests", "queue, lane, reason")},
                stacked=True,
            ),
            Panel(title="First in line since", queries={LANE: lanes("head_wait_seconds")}, unit="s", alarm=4 * 3600),
            Panel(
                title="Wait until the grant, half and nine of ten",
                queries={
                    f"{LANE} {share:.0%}": f"histogram_quantile({share}, {rate('wait_seconds_bucket', 'queue, lane, le', CHOSEN)})"
                    for share in (0.5, 0.9)
                },
                unit="s",
            ),
        ),
    ),
    Row(
        title="What becomes of them",
        panels=(
            Panel(title="Known to be idle", queries={LANE: lanes("idle_gpus")}, stacked=True),
            Panel(
                title="Nobody knows whether used", queries={LANE: lanes("unknown_use_gpus")}, about="Never counted as idle.", stacked=True
            ),
            Panel(
                title="Share of held time used, where known",
                queries={
                    LANE: f"{rate('used_gpu_seconds_total', 'queue, lane', CHOSEN)} / "
                    f"({rate('held_gpu_seconds_total', 'queue, lane', CHOSEN)} - {rate('unknown_gpu_seconds_total', 'queue, lane', CHOSEN)} > 0)"
                },
                unit="percentunit",
            ),
            Panel(
                title="Steps of the idle policy",
                queries={"{{queue}} {{step}}": rate("idle_steps_total", "queue, step", CHOSEN)},
                unit="ops",
            ),
        ),
    ),
    Row(
        title="Budget and promises",
        panels=(
            Panel(
                title="Budget spent", queries={QUEUE: lanes("budget_spent_ratio", "queue")}, unit="percentunit", kind="bargauge", alarm=1
            ),
            Panel(title="GPU-seconds this period", queries={QUEUE: lanes("spent_gpu_seconds", "queue")}),
            Panel(
                title="Starts promised with 90 % that were kept",
                queries={QUEUE: f"{lanes('eta_p90_coverage_ratio', 'queue')} and {lanes('eta_judged_starts', 'queue')} >= 50"},
                about="0.9 is honest; only queues with fifty starts to judge by.",
                unit="percentunit",
            ),
            Panel(title="Distance from the likely start", queries={QUEUE: lanes("eta_error_seconds", "queue")}, unit="s"),
        ),
    ),
    Row(
        title="The controller",
        panels=(
            Panel(title="Leads", queries={"{{instance}}": "gpuqueue_leader"}, about="One, and only one for long."),
            Panel(title="Age of its view", queries={"{{instance}}": "gpuqueue_view_age_seconds"}, unit="s", alarm=600),
            Panel(
                title="From room to open gate, half and 99 of 100",
                queries={f"{share:.0%}": f"histogram_quantile({share}, {rate('gate_open_seconds_bucket', 'le')})" for share in (0.5, 0.99)},
                unit="s",
            ),
            Panel(
                title="A round takes, half and 99 of 100",
                queries={f"{share:.0%}": f"histogram_quantile({share}, {rate('round_seconds_bucket', 'le')})" for share in (0.5, 0.99)},
                unit="s",
            ),
        ),
    ),
    Row(
        title="What is wrong",
        panels=(
            Panel(
                title="Gates",
                queries={
                    f"{QUEUE} granted and shut": f"{lanes('unopened_grants', 'queue')} > 0",
                    f"{QUEUE} refused": f"{rate('gate_refusals_total', 'queue', CHOSEN)} > 0",
                },
                alarm=1,
            ),
            Panel(title="Ledger written by somebody else", queries={QUEUE: rate("ledger_conflicts_total", "queue", CHOSEN)}, unit="ops"),
            Panel(
                title="Pods that nobody serves",
                queries={
                    "in no queue": "max(gpuqueue_orphan_pods)",
                    "namespaces in two queues": "max(gpuqueue_overlapping_namespaces)",
                },
                alarm=1,
            ),
            Panel(
                title="Errors, and answers of the API server",
                queries={
                    "error in {{where}}": f"{rate('errors_total', 'where')} > 0",
                    "{{verb}} {{resource}} {{code}}": rate("api_requests_total", "verb, resource, code"),
                },
                unit="ops",
            ),
        ),
    ),
)


def main() -> int:
    """Write the file that the chart ships."""
    queue = Choice(name="queue", label="Queue", metric="gpuqueue_quota_gpus")
    write(TARGET, dashboard(uid="gpu-queue", title="GPU queue", rows=ROWS, choices=[queue]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
