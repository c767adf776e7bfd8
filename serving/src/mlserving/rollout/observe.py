"""What the tracks did since a step began, from what the gateways count: read from themselves, or from a Prometheus that scrapes them.

Both give the same counts under the same flat names, and one function makes the observation of them:

    requests/<track>/<version>/<code>   seconds/<track>/<version>/<upper edge>   classes/<track>/<version>/<class>   fallbacks/<track>

Counters begin at zero when a gateway does, so each gateway (and each series, with Prometheus) is taken for itself: where it has begun anew since the
mark, what it has counted is what there is.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from mlserving.errors import Unavailable
from mlserving.gateway.settings import Track
from mlserving.rollout.observation import Histogram, Observation, Seen
from mlserving.rollout.plan import Rollout

REQUESTS, SECONDS = "millrace_gateway_requests_total", "millrace_gateway_request_seconds_bucket"
CLASSES, FALLBACKS = "millrace_prediction_class_total", "millrace_gateway_fallbacks_total"
_KINDS = {REQUESTS: ("requests", "code"), SECONDS: ("seconds", "le"), CLASSES: ("classes", "class"), FALLBACKS: ("fallbacks", "")}
ENDPOINT = "millrace_gateway_endpoint_up"
_OF_AN_ENDPOINT = frozenset({"track", "endpoint", "version"})
"""Its labels that are not the gateway's."""
_STARTED = "process_start_time_seconds"
_GIVEN_UP = frozenset({"CANCELLED", "499"})
"""The caller went away: says nothing about the version."""
_TIMEOUT = 10.0
_LOOK = 1.0
_LOOK_BACK = 300
"""Seconds before a step's beginning in which a series' last value counts as its value then: Prometheus' own default."""

Counts = Mapping[str, float]


class Gateways:
    """The gateways' own metrics pages. `addresses` tells where they are now, as `host:port` of the admin port."""

    def __init__(self, addresses: Callable[[], Sequence[str]]) -> None:
        self._addresses = addresses

    def mark(self, rollout: Rollout) -> dict[str, Any]:
        """See `driver.Source`."""
        return {address: {"started": started, "counts": dict(counts)} for address, (started, counts) in self._pages(rollout).items()}

    def reaches(self, rollout: Rollout, seconds: float) -> bool:
        """See `driver.Source`."""
        return _in_time(lambda: every_gateway_reaches(self._endpoints(rollout), rollout), seconds)

    def _endpoints(self, rollout: Rollout) -> Iterator[tuple[Mapping[str, str], float]]:
        for address in self._addresses():
            for sample in _samples(_page(address)):
                if sample.name == ENDPOINT and sample.labels.get("model") == rollout.model:
                    yield {**sample.labels, "instance": address}, sample.value

    def observe(self, rollout: Rollout, _: float) -> Observation:
        """See `driver.Source`. A page tells what is, not what was, so the time does not matter."""
        total: dict[str, float] = defaultdict(float)
        for address, (started, counts) in self._pages(rollout).items():
            _add(total, _since((rollout.baseline or {}).get(address), started, counts))
        return observation(total, rollout)

    def _pages(self, rollout: Rollout) -> dict[str, tuple[float | None, Counts]]:
        return {address: read_page(_page(address), rollout) for address in self._addresses()}


class Prometheus:
    """A Prometheus server that scrapes the gateways; `matchers` narrows the series down, for example `namespace="serving"`."""

    def __init__(self, url: str, matchers: str = "") -> None:
        self._url = url.rstrip("/")
        self._matchers = matchers

    def mark(self, rollout: Rollout) -> dict[str, Any]:
        """Nothing to remember: Prometheus can be asked about the past. That it answers is made sure of."""
        del rollout
        self._ask("vector(1)", None)
        return {}

    def reaches(self, rollout: Rollout, seconds: float) -> bool:
        """See `driver.Source`."""
        series = f"{ENDPOINT}{{{self._matching(rollout)}}}"
        return _in_time(
            lambda: every_gateway_reaches(((dict(labels), up) for labels, up in self._ask(series, None).items()), rollout), seconds
        )

    def observe(self, rollout: Rollout, now: float) -> Observation:
        """See `driver.Source`."""
        assert rollout.step_started is not None
        total: dict[str, float] = defaultdict(float)
        for name in _KINDS:
            _add(total, self._increases(name, rollout, since=rollout.step_started, until=now))
        return observation(total, rollout)

    def _increases(self, name: str, rollout: Rollout, *, since: float, until: float) -> Counts:
        """By how much each series has grown: its last value less its value at the beginning, or Prometheus' increase() where it was reset.

        increase() alone would miss the first value of a series that began in between, such as the first error of a kind.
        """
        series = f"{name}{{{self._selector(name, rollout)}}}"
        window = f"{max(1, round(until - since))}s"
        before = self._ask(f"last_over_time({series}[{_LOOK_BACK}s])", since)
        resets = self._ask(f"resets({series}[{window}]) > 0", until)
        grown = self._ask(f"increase({series}[{window}])", until) if resets else {}
        total: dict[str, float] = defaultdict(float)
        for labels, value in self._ask(f"last_over_time({series}[{window}])", until).items():
            key = _key(name, dict(labels), rollout)
            if key:
                total[key] += grown[labels] if labels in resets and labels in grown else max(0.0, value - before.get(labels, 0.0))
        return total

    def _selector(self, name: str, rollout: Rollout) -> str:
        versions = f'version=~"{rollout.from_version}|{rollout.to_version}"'
        return self._matching(rollout, *([] if name == FALLBACKS else [versions]))

    def _matching(self, rollout: Rollout, *more: str) -> str:
        return ",".join([f"model={json.dumps(rollout.model)}", *more, *([self._matchers] if self._matchers else [])])

    def _ask(self, query: str, time: float | None) -> dict[tuple[tuple[str, str], ...], float]:
        """An instant query; series by their labels without the name."""
        arguments = {"query": query, **({"time": f"{time:.3f}"} if time is not None else {})}
        answer = json.loads(_fetch(f"{self._url}/api/v1/query?{urllib.parse.urlencode(arguments)}"))
        return {
            tuple(sorted((key, value) for key, value in each["metric"].items() if key != "__name__")): float(each["value"][1])
            for each in answer["data"]["result"]
        }


def every_gateway_reaches(endpoints: Iterable[tuple[Mapping[str, str], float]], rollout: Rollout) -> bool:
    """Whether each gateway that tells of the model's servers can ask one of the canary's, by the labels and values of what they tell (`ENDPOINT`)."""
    gateways, reaching = set(), set()
    for labels, up in endpoints:
        gateway = frozenset((name, value) for name, value in labels.items() if name not in _OF_AN_ENDPOINT)
        gateways.add(gateway)
        if up and (labels.get("track"), labels.get("version")) == (Track.CANARY.value, str(rollout.to_version)):
            reaching.add(gateway)
    return bool(gateways) and reaching == gateways


def _in_time(holds: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(_LOOK)
    return True


def read_page(text: str, rollout: Rollout) -> tuple[float | None, Counts]:
    """When the process began, where the page says so, and what it has counted of the rollout's versions."""
    started: float | None = None
    counts: dict[str, float] = defaultdict(float)
    for sample in _samples(text):
        if sample.name == _STARTED:
            started = float(sample.value)
        elif sample.name in _KINDS and sample.labels.get("model") == rollout.model:
            key = _key(sample.name, sample.labels, rollout)
            if key:
                counts[key] += float(sample.value)
    return started, counts


def _page(address: str) -> str:
    return _fetch(f"http://{address}/metrics").decode()


def _samples(text: str) -> Iterator[Sample]:
    return (sample for family in text_string_to_metric_families(text) for sample in family.samples)


def observation(counts: Counts, rollout: Rollout) -> Observation:
    """Both tracks, from flat counts."""
    return Observation(canary=_seen(counts, Track.CANARY, rollout.to_version), stable=_seen(counts, Track.STABLE, rollout.from_version))


def _seen(counts: Counts, track: Track, version: int) -> Seen:
    codes, buckets, classes = (_under(counts, f"{kind}/{track}/{version}/") for kind in ("requests", "seconds", "classes"))
    answered = {code: value for code, value in codes.items() if code not in _GIVEN_UP}
    lost = counts.get(
        f"fallbacks/{track}", 0.0
    )  # stable answered, because this track had no server up: callers saw no failure, and it is one
    return Seen(
        version=version,
        requests=round(sum(answered.values()) + lost),
        errors=round(sum(value for code, value in answered.items() if not _succeeded(code)) + lost),
        latency=Histogram.from_cumulative({float(edge): value for edge, value in buckets.items()}),
        classes={name: round(value) for name, value in classes.items() if value},
    )


def _succeeded(code: str) -> bool:
    """Whatever is no success counts as a failure, a caller's mistake too: chance deals those to both tracks alike, and a version that refuses
    what the one before it took shows by nothing else.
    """
    return code == "OK" or (code.isdecimal() and int(code) < 400)  # noqa: PLR2004  HTTP's statuses of success and redirection


def _key(name: str, labels: Mapping[str, str], rollout: Rollout) -> str:
    """The flat name of a series; "" for one that is not of this rollout."""
    kind, label = _KINDS[name]
    if kind == "fallbacks":
        return f"{kind}/{labels.get('track')}"
    ours = {(Track.CANARY.value, str(rollout.to_version)), (Track.STABLE.value, str(rollout.from_version))}
    track, version = labels.get("track", ""), labels.get("version", "")
    return f"{kind}/{track}/{version}/{labels.get(label, '')}" if (track, version) in ours else ""


def _since(mark: Mapping[str, Any] | None, started: float | None, counts: Counts) -> Counts:
    """What one gateway has counted since it was marked. Its recorder counts classes, and may begin anew while the gateway goes on."""
    before: Counts = mark["counts"] if mark else {}
    anew = mark is None or mark.get("started") != started
    grown: dict[str, float] = {}
    for recorder in (True, False):
        now, then = ({key: value for key, value in each.items() if key.startswith("classes/") is recorder} for each in (counts, before))
        reset = anew or any(now.get(key, 0.0) < value for key, value in then.items())
        grown |= now if reset else {key: value - then.get(key, 0.0) for key, value in now.items()}
    return grown


def _add(total: dict[str, float], counts: Counts) -> None:
    for key, value in counts.items():
        total[key] += value


def _under(counts: Counts, prefix: str) -> dict[str, float]:
    return {key.removeprefix(prefix): value for key, value in counts.items() if key.startswith(prefix)}


def _fetch(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as answer:  # noqa: S310  the address is the operator's own
            content: bytes = answer.read()
            return content
    except (OSError, urllib.error.URLError) as error:
        raise Unavailable(f"{url.partition('?')[0]} did not answer: {error}. Nothing was changed. Type the same command again.") from error
