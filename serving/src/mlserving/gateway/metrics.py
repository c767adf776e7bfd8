"""What the gateway says about itself to Prometheus. Counting is a dictionary step and a bisection; the rest happens when somebody scrapes.

Alert rules, dashboards, the monitor and `millrace rollout` go by these names, and docs/reference/gateway.md is made from them: whoever renames one
breaks somebody's rollout.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily, Metric

from mlserving.rollout.plan import Phase, Verdict

if TYPE_CHECKING:
    from mlserving.gateway.calls import Call
    from mlserving.gateway.settings import Rollout
    from mlserving.gateway.tracks import Fleet

SECONDS = (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 2, 5, 10, 30)
"""Buckets of whole requests."""
ADDED = (0.0001, 0.0002, 0.0003, 0.0005, 0.00075, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5)
"""Buckets of what the gateway adds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """A line of the contract."""

    name: str
    kind: Literal["counter", "gauge", "histogram", "info"]
    labels: tuple[str, ...]
    help: str


_WHO = ("model", "track", "version", "protocol")
CONTRACT = (
    Declared(name="millrace_gateway_requests_total", kind="counter", labels=(*_WHO, "code"), help="Requests answered, by gRPC status or HTTP status. Those that reached no track have none, those that no server of the track was asked have no version. Shadow copies have the track `shadow`."),
    Declared(name="millrace_gateway_request_seconds", kind="histogram", labels=_WHO, help="From the arrival of a whole request until its answer is on its way."),
    Declared(name="millrace_gateway_added_seconds", kind="histogram", labels=("protocol",), help="Of that, what the gateway itself took: all but the wait for the model server."),
    Declared(name="millrace_gateway_shadow_total", kind="counter", labels=("model", "outcome"), help="Shadow copies: `answered`, `failed`, `late`, `dropped` (too many under way), `unavailable` (no shadow server is up)."),
    Declared(name="millrace_gateway_retries_total", kind="counter", labels=("model", "track"), help="Requests sent once more, because the first server cannot have answered or its connection was lost."),
    Declared(name="millrace_gateway_fallbacks_total", kind="counter", labels=("model", "track"), help="Requests of this track that stable answered, because no server of the track was up."),
    Declared(name="millrace_gateway_in_flight", kind="gauge", labels=("model", "track"), help="Requests under way."),
    Declared(name="millrace_gateway_endpoint_up", kind="gauge", labels=("model", "track", "endpoint", "version"), help="1 for a model server that serves a version and can be reached. One that serves none has no version."),
    Declared(name="millrace_gateway_track_weight", kind="gauge", labels=("model", "track"), help="Percent of the requests that the settings in force give the track."),
    Declared(name="millrace_gateway_weights_changed_timestamp_seconds", kind="gauge", labels=("model",), help="When the weights in force last changed, or this gateway began with them."),
    Declared(name="millrace_gateway_config_hash_info", kind="info", labels=("hash",), help="SHA-256 of the settings in force."),
    Declared(name="millrace_gateway_config_valid", kind="gauge", labels=(), help="1 while the settings in force are those that are to be; 0 while those cannot be had or read, and the ones before stay in force."),
    Declared(name="millrace_gateway_config_errors_total", kind="counter", labels=(), help="Settings that could not be read; those before them stayed in force."),
    Declared(name="millrace_gateway_spooled_total", kind="counter", labels=("model", "track"), help="Exchanges handed to the recorder's spool."),
    Declared(name="millrace_gateway_spool_dropped_total", kind="counter", labels=("reason",), help="Exchanges that were chosen for the log and are lost: `full`, `error` (the disk), `unreadable` (compressed in a way that cannot be read)."),
    Declared(name="millrace_gateway_recorder_restarts_total", kind="counter", labels=(), help="Times that the recorder had died and was started again."),
    Declared(name="millrace_gateway_buffered_bytes", kind="gauge", labels=(), help="Requests and answers held in memory."),
    Declared(name="millrace_gateway_connections", kind="gauge", labels=("protocol",), help="Connections of clients."),
    Declared(name="millrace_gateway_cut_off_total", kind="counter", labels=("protocol", "reason"), help="Requests and connections that were ended because a client was too slow with a request's `head` or `body`, too slow to take an `answer`, or cancelled too many calls (`resets`); or because there were too many `connections`."),
    Declared(name="millrace_rollout_info", kind="info", labels=("model", "rollout", "from_version", "to_version"), help="The rollout under way, or the last one, as the settings in force tell it."),
    Declared(name="millrace_rollout_phase", kind="gauge", labels=("model", "rollout", "phase"), help="1 for the phase in which it is, 0 for the others."),
    Declared(name="millrace_rollout_step", kind="gauge", labels=("model", "rollout"), help="Which of its steps, from 0. The share of the step is the canary's millrace_gateway_track_weight."),
    Declared(name="millrace_rollout_steps", kind="gauge", labels=("model", "rollout"), help="How many steps its plan has, the promotion with them."),
    Declared(name="millrace_rollout_verdict", kind="gauge", labels=("model", "rollout", "verdict"), help="1 for what the last look of the step showed, 0 for the others; all 0 before the first look."),
)  # fmt: skip
"""Every metric, in the order of the reference page. A histogram's series are `_bucket`, `_sum` and `_count`."""


class Buckets:
    """A histogram."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds, self.counts, self.total = bounds, [0] * (len(bounds) + 1), 0.0

    def add(self, value: float) -> None:
        """Count `value`."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def cumulative(self) -> list[tuple[str, float]]:
        """As the text format wants it."""
        found, so_far = [], 0
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            so_far += count
            found.append((bound, float(so_far)))
        return found


class Series:
    """Requests of one model, track, version and protocol."""

    __slots__ = ("codes", "seconds")

    def __init__(self) -> None:
        self.codes: Counter[str] = Counter()
        self.seconds = Buckets(SECONDS)


class Metrics:
    """All counts; a collector for prometheus-client."""

    def __init__(self, fleet: Fleet | None = None) -> None:
        self.fleet = fleet
        self.config_hash = ""
        self.config_errors = 0
        self.config_valid = True
        self.recorder_restarts = 0
        self.buffered: Callable[[], int] = int
        self.connections: dict[str, int] = {}
        self.dropped: Counter[str] = Counter()
        self._series: dict[tuple[str, str, int, str], Series] = {}
        self._unrouted: Counter[tuple[str, str, str]] = Counter()
        self._added = {"grpc": Buckets(ADDED), "rest": Buckets(ADDED)}
        self._shadow: Counter[tuple[str, str]] = Counter()
        self._retries: Counter[tuple[str, str]] = Counter()
        self._fallbacks: Counter[tuple[str, str]] = Counter()
        self._spooled: Counter[tuple[str, str]] = Counter()
        self._cut_off: Counter[tuple[str, str]] = Counter()
        self._not_logged = 0

    def answered(self, call: Call, version: int, code: str, seconds: float, added: float | None) -> None:
        """A request is over. `added` is None where no model server answered."""
        key = (call.spec.name, call.track.track, version, call.protocol)
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = Series()
        series.codes[code] += 1
        series.seconds.add(seconds)
        if added is not None:
            self._added[call.protocol].add(added)

    def unrouted(self, model: str, protocol: str, code: str) -> None:
        """A request was answered that reached no track."""
        self._unrouted[model, protocol, code] += 1

    def shadow(self, model: str, outcome: str) -> None:
        """A shadow copy is over, or was not made."""
        self._shadow[model, outcome] += 1

    def retry(self, model: str, track: str) -> None:
        """A request is sent once more."""
        self._retries[model, track] += 1

    def fallback(self, model: str, track: str) -> None:
        """Stable answers for a track."""
        self._fallbacks[model, track] += 1

    def spooled(self, model: str, track: str) -> None:
        """An exchange was handed to the spool."""
        self._spooled[model, track] += 1

    def cut_off(self, protocol: str, reason: Literal["head", "body", "answer", "resets", "connections"]) -> None:
        """A client is not waited for any more."""
        self._cut_off[protocol, reason] += 1

    def not_logged(self, _: str) -> None:
        """An exchange cannot be read, so it is not logged."""
        self._not_logged += 1

    # -- when somebody scrapes --------------------------------------------------------------------------------------------

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client.registry.Collector."""
        found = {declared.name: _family(declared) for declared in CONTRACT}
        self._collect_requests(found)
        for name, counts in (
            ("shadow_total", self._shadow), ("retries_total", self._retries), ("fallbacks_total", self._fallbacks), ("spooled_total", self._spooled),
            ("cut_off_total", self._cut_off),
        ):  # fmt: skip
            for labels, count in sorted(counts.items()):
                found[f"millrace_gateway_{name}"].add_metric(labels, count)
        for reason in ("full", "error"):
            found["millrace_gateway_spool_dropped_total"].add_metric([reason], self.dropped[reason])
        found["millrace_gateway_spool_dropped_total"].add_metric(["unreadable"], self._not_logged)
        found["millrace_gateway_config_valid"].add_metric([], float(self.config_valid))
        found["millrace_gateway_config_errors_total"].add_metric([], self.config_errors)
        found["millrace_gateway_recorder_restarts_total"].add_metric([], self.recorder_restarts)
        found["millrace_gateway_buffered_bytes"].add_metric([], self.buffered())
        found["millrace_gateway_config_hash_info"].add_metric([], {"hash": self.config_hash})
        for protocol, count in self.connections.items():
            found["millrace_gateway_connections"].add_metric([protocol], count)
        self._collect_fleet(found)
        yield from found.values()

    def _collect_requests(self, found: dict[str, Any]) -> None:
        for (model, track, version, protocol), series in sorted(self._series.items()):
            labels = (model, track, _named(version), protocol)
            for code, count in sorted(series.codes.items()):
                found["millrace_gateway_requests_total"].add_metric((*labels, code), count)
            found["millrace_gateway_request_seconds"].add_metric(labels, series.seconds.cumulative(), series.seconds.total)
        for (model, protocol, code), count in sorted(self._unrouted.items()):
            found["millrace_gateway_requests_total"].add_metric((model, "", "", protocol, code), count)
        for protocol, buckets in self._added.items():
            found["millrace_gateway_added_seconds"].add_metric((protocol,), buckets.cumulative(), buckets.total)

    def _collect_fleet(self, found: dict[str, Any]) -> None:
        for model in self.fleet.models.values() if self.fleet else ():
            found["millrace_gateway_weights_changed_timestamp_seconds"].add_metric([model.name], model.weights_changed)
            if model.settings.rollout is not None:
                _collect_rollout(found, model.name, model.settings.rollout)
            for name, track in model.tracks.items():
                found["millrace_gateway_in_flight"].add_metric((model.name, name), track.in_flight)
                found["millrace_gateway_track_weight"].add_metric((model.name, name), track.backend.weight)
                for endpoint in track.endpoints:
                    labels = (model.name, name, str(endpoint.address), _named(endpoint.version))
                    found["millrace_gateway_endpoint_up"].add_metric(labels, float(endpoint.up))


def _collect_rollout(found: dict[str, Any], model: str, rollout: Rollout) -> None:
    who = (model, rollout.id)
    versions = {"from_version": str(rollout.from_version), "to_version": str(rollout.to_version)}
    found["millrace_rollout_info"].add_metric([], {"model": model, "rollout": rollout.id, **versions})
    found["millrace_rollout_step"].add_metric(who, rollout.step)
    found["millrace_rollout_steps"].add_metric(who, rollout.steps)
    for phase in Phase:
        found["millrace_rollout_phase"].add_metric((*who, phase.value), float(phase is rollout.phase))
    for verdict in Verdict:
        found["millrace_rollout_verdict"].add_metric((*who, verdict.value), float(verdict is rollout.verdict))


def _named(version: int) -> str:
    """A version as a label; 0 stands for none."""
    return str(version) if version else ""


_FAMILIES: dict[str, Any] = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily, "histogram": HistogramMetricFamily}


def _family(declared: Declared) -> Any:
    if declared.kind == "info":
        return InfoMetricFamily(declared.name.removesuffix("_info"), declared.help)
    return _FAMILIES[declared.kind](declared.name.removesuffix("_total"), declared.help, labels=declared.labels)
