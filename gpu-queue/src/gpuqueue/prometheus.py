"""How busy pods keep their GPUs, asked of whatever speaks Prometheus' query API: Prometheus, Thanos, Google's managed service.

`activity` is for the controller, which adds up what it learns in counters; `accounts` reads these back for a report.

One query brings every figure of every pod, so that they are of the same moment. What comes back is `gpuqueue.usage.Sample`s by
namespace and pod; a pod that is missing there is of unknown use, and so is every pod while nobody answers.

dcgm-exporter has a series for each GPU or MIG instance, with the pod that holds it in labels. Those are called `namespace` and
`pod` where the scrape honours labels and `exported_namespace` and `exported_pod` where it does not; whoever names the wrong ones
learns nothing about anybody. A restarted exporter continues a GPU's history in another series, so figures are put together by GPU
before they are averaged over time.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import msgspec

from gpuqueue.accounts import Account
from gpuqueue.errors import ConfigError, Unavailable
from gpuqueue.usage import LaneKey, PodKey, Sample

METRICS = {
    "gr_engine_active": ("DCGM_FI_PROF_GR_ENGINE_ACTIVE", 1.0),
    "sm_active": ("DCGM_FI_PROF_SM_ACTIVE", 1.0),
    "gpu_util": ("DCGM_FI_DEV_GPU_UTIL", 0.01),
}
"""What `spec.idle.metric` may say for short -> the exporter's metric, and what makes it a share of 1. GPU_UTIL is missing on MIG."""
_SCALES = dict(METRICS.values())
_METRIC = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_DEVICE = ("UUID", "gpu", "GPU_I_ID")
_FIGURE = "figure"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where activity is asked for, and how it is labelled there.

    Raises:
        ConfigError: a label's name is none.
    """

    url: str
    """What comes before `/api/v1/query`."""
    namespace_label: str = "exported_namespace"
    pod_label: str = "exported_pod"
    resolution: int = 120
    """Seconds. A hole that is longer than this is noticed; at least twice the scrape interval, or every second scrape is a hole."""
    deadline: float = 20.0
    token_file: Path | None = None
    """A bearer token, read again for every question: it may be replaced at any time."""

    def __post_init__(self) -> None:
        for label in (self.namespace_label, self.pod_label):
            if not _LABEL.fullmatch(label):
                raise ConfigError(f"{label!r} is no name of a Prometheus label; dcgm-exporter's are namespace and pod, perhaps exported_…")


def activity_query(metric: str, window: float, source: Source) -> str:
    """PromQL for the figures of `Sample`, each in a series of its own with the label `figure`.

    Args:
        metric: `spec.idle.metric`.
        window: seconds; rounded up to a multiple of the source's resolution.
        source: whose labels and resolution to use.

    Raises:
        ConfigError: `metric` is no name of a metric.
    """
    name, scale = METRICS.get(metric, (metric, _SCALES.get(metric, 1.0)))
    if not _METRIC.fullmatch(name):
        raise ConfigError(
            f"spec.idle.metric: {metric!r} is no name of a metric. Known: {', '.join(METRICS)}; any other name is taken as it is"
        )
    pod = f"{source.namespace_label}, {source.pod_label}"
    series = f'{name}{{{source.pod_label}!=""}}'
    step, span = source.resolution, covered(window, source)
    gpu = f"max by ({pod}, {', '.join(_DEVICE)})"
    steps = f"({gpu} (avg_over_time({series}[{step}s])))[{span}s:{step}s]"
    figures = {
        "mean": f"avg by ({pod}) (avg_over_time({steps})) * {scale}",
        "highest": f"max by ({pod}) (max_over_time({series}[{span}s])) * {scale}",
        # How many steps there are is asked of the server too: versions differ on whether a range includes its first moment.
        "share": f"min by ({pod}) (count_over_time({steps})) / scalar(count_over_time(vector(1)[{span}s:{step}s]))",
        "gpus": f"count by ({pod}) ({gpu} (present_over_time({series}[{span}s])))",
    }
    return _labelled(figures)


def accounts_query(period: float) -> str:
    """PromQL for the fields of `Account` over the last `period` seconds, each in a series of its own with the label `figure`."""
    counters = {"held": "held_gpu_seconds_total", "used": "used_gpu_seconds_total", "unknown": "unknown_gpu_seconds_total"}
    return _labelled({field: f"sum by (queue, lane) (increase(gpuqueue_{name}[{period:.0f}s]))" for field, name in counters.items()})


def _labelled(queries: Mapping[str, str]) -> str:
    """One query for several, each told by the label `figure`."""
    return "\nor ".join(f'label_replace({query}, "{_FIGURE}", "{figure}", "", "")' for figure, query in queries.items())


def covered(window: float, source: Source) -> int:
    """The seconds that a question about `window` is about."""
    return max(1, math.ceil(window / source.resolution)) * source.resolution


class Prometheus:
    """Asks one source, through a session that belongs to the caller."""

    def __init__(self, session: aiohttp.ClientSession, source: Source) -> None:
        self._session = session
        self._source = source

    async def activity(self, metric: str, window: float, at: float) -> dict[PodKey, Sample]:
        """The activity of every pod with a GPU over the `window` seconds before the moment `at`.

        Raises:
            ConfigError: `metric` is no name of a metric.
            Unavailable: no answer in time, or none that makes sense.
        """
        query = activity_query(metric, window, self._source)
        return _samples(await self._ask(query, at), self._source, at, covered(window, self._source))

    async def accounts(self, period: float, at: float) -> dict[LaneKey, Account]:
        """What each queue's lanes held and used in the `period` seconds before `at`, by the controller's own counters.

        Counters are read at scrapes, so what happened around a restart of the controller, or before the first scrape, is estimated.

        Raises:
            Unavailable: no answer in time, or none that makes sense.
        """
        figures = _by_key(await self._ask(accounts_query(period), at), "queue", "lane")
        return {lane: _account(of_lane) for lane, of_lane in figures.items() if math.isfinite(of_lane.get("held", math.nan))}

    async def _ask(self, query: str, at: float) -> list[_Row]:
        form = {"query": query, "time": f"{at:.3f}", "timeout": f"{self._source.deadline:g}s"}
        try:
            async with self._session.post(
                f"{self._source.url.rstrip('/')}/api/v1/query",
                data=form,
                headers=self._headers(),
                timeout=aiohttp.ClientTimeout(total=self._source.deadline),
                allow_redirects=False,  # a token is for whom it was given
            ) as response:
                return _rows(response.status, await response.read())
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._unavailable(str(error) or type(error).__name__) from error
        except _Nonsense as error:
            raise self._unavailable(str(error)) from error

    def _headers(self) -> dict[str, str]:
        if self._source.token_file is None:
            return {}
        return {"Authorization": f"Bearer {self._source.token_file.read_text(encoding='utf-8').strip()}"}

    def _unavailable(self, why: str) -> Unavailable:
        return Unavailable(
            f"no GPU activity from {self._source.url}: {why}. Whether GPUs are used is unknown meanwhile. To look: gpuq doctor"
        )


class _Nonsense(Exception):
    """An answer that is none."""


class _Row(msgspec.Struct):
    metric: dict[str, str]
    value: tuple[float, str]


class _Data(msgspec.Struct):
    resultType: str  # noqa: N815  # the API's word
    result: msgspec.Raw


class _Answer(msgspec.Struct):
    status: str
    data: _Data | None = None
    error: str = ""


def _rows(status: int, body: bytes) -> list[_Row]:
    """Of an answer; an error of the API has a JSON body too."""
    try:
        answer = msgspec.json.decode(body, type=_Answer)
        if answer.status != "success" or answer.data is None:
            raise _Nonsense(f"HTTP {status}, {answer.error or answer.status}")
        if answer.data.resultType != "vector":
            raise _Nonsense(f"it answered with a {answer.data.resultType} instead of a vector")
        return msgspec.json.decode(answer.data.result, type=list[_Row])
    except msgspec.MsgspecError as error:
        raise _Nonsense(f"HTTP {status}, which is no answer of the query API ({error})") from error


def _samples(rows: Iterable[_Row], source: Source, at: float, window: float) -> dict[PodKey, Sample]:
    figures = _by_key(rows, source.namespace_label, source.pod_label)
    found = {pod: _sample(of_pod, at, window) for pod, of_pod in figures.items()}
    return {pod: sample for pod, sample in found.items() if sample is not None}


def _by_key(rows: Iterable[_Row], first: str, second: str) -> dict[tuple[str, str], dict[str, float]]:
    """The figures of each pair of values of two labels."""
    figures: dict[tuple[str, str], dict[str, float]] = {}
    for row in rows:
        key = (row.metric.get(first, ""), row.metric.get(second, ""))
        figures.setdefault(key, {})[row.metric.get(_FIGURE, "")] = _number(row.value[1])
    return figures


def _sample(figures: Mapping[str, float], at: float, window: float) -> Sample | None:
    """Of one pod; nothing where a figure is missing or is no number."""
    wanted = [figures.get(name, math.nan) for name in ("mean", "highest", "share", "gpus")]
    if not all(map(math.isfinite, wanted)):
        return None
    mean, highest, share, gpus = wanted
    return Sample(at=at, window=window, mean=mean, highest=highest, share=share, gpus=round(gpus))


def _account(figures: Mapping[str, float]) -> Account:
    """Of one lane; where it is not said how much is unknown, everything that is not known to be used is."""
    finite = {name: value for name, value in figures.items() if math.isfinite(value)}
    held, used = finite["held"], finite.get("used", 0.0)
    return Account(held=held, used=used, unknown=finite.get("unknown", max(0.0, held - used)))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
