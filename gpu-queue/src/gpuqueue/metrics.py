"""What the controller says about itself to Prometheus: every metric, declared once.

The controller sets them; alert rules (`helm/gpu-queue/rules`), the dashboard and `docs/reference/gpu-queue-metrics.md` name them,
and tests hold all three to this list. Whoever renames one here breaks somebody's dashboard: say so in the changelog.

Gauges tell the present and are replaced whole after every round: what is no longer there vanishes, instead of standing at its last
value for ever. Only the leader knows the queues; a replica that stops leading calls `stand_down`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

from gpuqueue.accounts import Account
from gpuqueue.usage import LaneKey

Kind = Literal["gauge", "counter", "histogram"]

M = TypeVar("M", Gauge, Counter, Histogram)

_PREFIX = "gpuqueue_"
_QUEUE = ("queue",)
_LANE = ("queue", "lane")
_WAITS = (1, 5, 15, 60, 300, 900, 1800, 3600, 7200, 14400, 28800, 86400, 259200)
_GATES = (0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300)
_ROUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """A line of the contract."""

    name: str
    """As Prometheus knows it."""
    kind: Kind
    help: str
    labels: tuple[str, ...]

    @property
    def series(self) -> tuple[str, ...]:
        """The names by which queries reach it."""
        return tuple(f"{self.name}_{part}" for part in ("bucket", "sum", "count")) if self.kind == "histogram" else (self.name,)


class Metrics:
    """Every metric of one controller, in a registry of its own.

    Scrape and update from the same thread: then a scrape never sees a gauge half replaced.
    """

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # untyped there; of the whole process: series that nobody asks for
        self.registry = CollectorRegistry()
        self.contract: list[Declared] = []
        """In the order in which the reference page tells them."""
        self._all: list[Gauge | Counter | Histogram] = []

        # -- what a queue has and what waits for it; set from each round's outcome --
        self.quota_gpus = self._gauge("quota_gpus", "GPUs that the ledger of the lane may hold now, by its calendar.", _LANE)
        self.granted_gpus = self._gauge(
            "granted_gpus",
            "GPUs that the ledger of the lane holds, foreign and lent ones included; at most the quota for new grants.",
            _LANE,
        )
        self.foreign_gpus = self._gauge(
            "foreign_gpus", "Of the granted ones, those of pods that ran before the queue knew them: counted, never killed.", _LANE
        )
        self.lent_gpus = self._gauge("lent_gpus", "Of the granted ones, those that pods of other queues hold: only pools lend.", _LANE)
        self.borrowed_gpus = self._gauge("borrowed_gpus", "GPUs that pods of this queue hold in the ledger of its pool.", _LANE)
        self.waiting_requests = self._gauge(
            "waiting_requests", "Pods and groups that wait, by why they wait (the values of `gpuqueue.queue.Reason`).", (*_LANE, "reason")
        )
        self.waiting_gpus = self._gauge("waiting_gpus", "GPUs that those ask for which wait and can ever start.", _LANE)
        self.head_wait_seconds = self._gauge(
            "head_wait_seconds", "How long the first in line has waited since its creation; not there for an empty line.", _LANE
        )
        self.unopened_grants = self._gauge(
            "unopened_grants", "Grants of which a pod's gate is still shut a minute after the grant: GPUs held for nobody.", _QUEUE
        )

        # -- how fast --
        self.wait_seconds = self._histogram("wait_seconds", "From the creation of a request to its grant.", _LANE, _WAITS)
        self.gate_open_seconds = self._histogram(
            "gate_open_seconds", "From the moment when a view showed that there was room to the opened gate.", (), _GATES
        )
        self.round_seconds = self._histogram(
            "round_seconds", "How long a round of the leader took, reads and writes included.", (), _ROUNDS
        )

        # -- the ledger and the gates --
        self.ledger_writes = self._counter("ledger_writes_total", "Ledgers written.", _QUEUE)
        self.ledger_conflicts = self._counter(
            "ledger_conflicts_total", "Ledgers that somebody else wrote between our read and our write; nothing was lost.", _QUEUE
        )
        self.gate_refusals = self._counter(
            "gate_refusals_total", "Times that the API server refused to let a gate be opened, in earnest or in a trial.", _QUEUE
        )

        # -- budget --
        self.spent_gpu_seconds = self._gauge(
            "spent_gpu_seconds", "GPU-seconds of the budget's period so far; of the month without one.", _QUEUE
        )
        self.budget_spent_ratio = self._gauge(
            "budget_spent_ratio", "Share of the budget that is spent; 1 is all of it, and more is possible.", _QUEUE
        )
        self.budget_end_timestamp_seconds = self._gauge(
            "budget_end_timestamp_seconds", "When the budget's period ends, in seconds since the epoch.", _QUEUE
        )

        # -- what becomes of granted GPUs (gpuqueue.usage) --
        self.idle_gpus = self._gauge("idle_gpus", "Granted GPUs that are known to have been idle for as long as the policy says.", _LANE)
        self.unknown_use_gpus = self._gauge(
            "unknown_use_gpus", "Granted GPUs of which nobody can say whether they are used; only for queues with an idle policy.", _LANE
        )
        self.held_gpu_seconds = self._counter("held_gpu_seconds_total", "GPU-seconds that were held.", _LANE)
        self.used_gpu_seconds = self._counter("used_gpu_seconds_total", "Held GPU-seconds times activity, where activity is known.", _LANE)
        self.unknown_gpu_seconds = self._counter("unknown_gpu_seconds_total", "Held GPU-seconds of unknown activity.", _LANE)
        self.idle_steps = self._counter(
            "idle_steps_total", "Grants that were taken a step up the ladder of the idle policy: warn, alert or evict.", (*_QUEUE, "step")
        )

        # -- how good the promise was --
        self.eta_p90_coverage_ratio = self._gauge(
            "eta_p90_coverage_ratio",
            "Share of recent starts that came no later than the time told with 90 % certainty; 0.9 is honest.",
            _QUEUE,
        )
        self.eta_error_seconds = self._gauge(
            "eta_error_seconds", "Median distance between start and the time told as likely, over recent starts.", _QUEUE
        )
        self.eta_judged_starts = self._gauge("eta_judged_starts", "How many recent starts the two figures rest on.", _QUEUE)

        # -- the controller --
        self.leader = self._gauge("leader", "1 in the replica that leads, 0 in the others.")
        self.view_age_seconds = self._gauge(
            "view_age_seconds", "Seconds since the API server last spoke to the stalest view that this replica decides by."
        )
        self.overlapping_namespaces = self._gauge("overlapping_namespaces", "Namespaces that more than one queue names; their pods wait.")
        self.orphan_pods = self._gauge("orphan_pods", "Pods behind our gate in namespaces of no queue; nothing lets them start.")
        self.told = self._counter("told_total", "Times that somebody was told why they wait, by condition or by event.", ("how",))
        self.api_requests = self._counter(
            "api_requests_total",
            "Requests to the API server, by verb, resource and HTTP status; code `none` got no answer.",
            ("verb", "resource", "code"),
        )
        self.errors = self._counter("errors_total", "What went wrong in a loop that goes on, by where.", ("where",))

    def replace(self, gauge: Gauge, values: Mapping[tuple[str, ...], float]) -> None:
        """Make `values`, by label values in the declared order, all that `gauge` says: other label sets vanish."""
        gauge.clear()
        for labels, value in values.items():
            gauge.labels(*labels).set(value)

    def forget_queues(self, kept: Iterable[str]) -> None:
        """Drop the counters and histograms of queues that are not among `kept`; `replace` sees to the gauges."""
        names = set(kept)
        for metric in self._by_queue():
            if not isinstance(metric, Gauge):
                for queue in {sample.labels["queue"] for family in metric.collect() for sample in family.samples} - names:
                    metric.remove_by_labels({"queue": queue})

    def expect_queues(self, names: Iterable[str]) -> None:
        """Start the counters of these queues at zero: a rate sees no increase in a series that begins at one."""
        for queue in names:
            for counter in (self.ledger_writes, self.ledger_conflicts, self.gate_refusals):
                counter.labels(queue)

    def add_accounts(self, accounts: Mapping[LaneKey, Account]) -> None:
        """Add what was held, used and unknown since the last time; a zero too, for a counter that is not there says nothing."""
        for lane, account in accounts.items():
            self.held_gpu_seconds.labels(*lane).inc(account.held)
            self.used_gpu_seconds.labels(*lane).inc(account.used)
            self.unknown_gpu_seconds.labels(*lane).inc(account.unknown)

    def stand_down(self) -> None:
        """No longer the leader: say nothing of queues, for another replica does."""
        for metric in self._by_queue():
            if isinstance(metric, Gauge):
                metric.clear()
        for plain in (self.leader, self.overlapping_namespaces, self.orphan_pods):
            plain.set(0)

    def page(self) -> bytes:
        """What a scrape gets, in Prometheus' text format."""
        return generate_latest(self.registry)

    def _by_queue(self) -> list[Gauge | Counter | Histogram]:
        return [metric for metric, declared in zip(self._all, self.contract, strict=True) if "queue" in declared.labels]

    def _gauge(self, name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
        return self._declare(Gauge(_PREFIX + name, text, labels, registry=self.registry), name, "gauge", text, labels)

    def _counter(self, name: str, text: str, labels: tuple[str, ...]) -> Counter:
        return self._declare(Counter(_PREFIX + name, text, labels, registry=self.registry), name, "counter", text, labels)

    def _histogram(self, name: str, text: str, labels: tuple[str, ...], buckets: Sequence[float]) -> Histogram:
        made = Histogram(_PREFIX + name, text, labels, registry=self.registry, buckets=buckets)
        return self._declare(made, name, "histogram", text, labels)

    def _declare(self, made: M, name: str, kind: Kind, text: str, labels: tuple[str, ...]) -> M:
        self._all.append(made)
        self.contract.append(Declared(name=_PREFIX + name, kind=kind, help=text, labels=labels))
        return made
