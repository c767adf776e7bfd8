"""From the prediction log to the review queue: what a CronJob runs, and what `millrace review fill` is.

Each run looks through the log from where the last one ended, so every row is considered once and its chance of being chosen is known. Two
that run at the same time would look through the same stretch: the one that comes second finds the first one's choice there, and leaves it.
The last two minutes are left to the next run, because the recorder may still be writing them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds

from mlserving import store
from mlserving.errors import ConfigError
from mlserving.predictions import reading
from mlserving.predictions.files import Window
from mlserving.predictions.records import FEATURE, OUTPUT
from mlserving.review.cases import Batch, NewCase, clean_label
from mlserving.review.choose import Candidate, Choice, Shares, choose
from mlserving.review.queue import ReviewQueue

LAG = timedelta(minutes=2)
_LONGEST_VALUE = 20_000
_CERTAIN = "confidence"
_ANSWERS = "predictions"
"""The name of the data set, in a version's statistics, that describes what it answered when it was judged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much people look at."""

    capacity: int = 100
    """Reviews a day (UTC). A case that two people look at is two."""
    runs: int = 1
    """How many runs a day there are: each may use its part of the capacity, and what earlier ones left."""
    most_waiting: int = 500
    """Reviews that wait. Where more would, nothing is added: people are behind."""
    shares: Shares = field(default_factory=Shares)
    margin: str | None = None
    """The output that holds a score for each class: then the margin between the first two counts, not the confidence."""
    due: timedelta = timedelta(days=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """What a run did."""

    since: datetime
    until: datetime
    read: int
    choices: Sequence[Choice]
    added: int
    why_none: str | None = None


def fill(
    queue: ReviewQueue,
    predictions: Path,
    model: str,
    plan: Plan,
    now: datetime,
    *,
    waiting: int,
    models: Path | None = None,
    since: datetime | None = None,
) -> Filled:
    """Choose from what the log has got since the last run, and put it into the queue.

    Args:
        queue: where cases go.
        predictions: the folder of log and labels.
        model: the model's name.
        plan: how much people look at.
        now: the moment.
        waiting: reviews that wait already.
        models: the model store, whose versions tell classes that were not predicted lately.
        since: where the first run begins; yesterday's midnight where nothing is said.

    Raises:
        ConfigError: the log has no such output, or says no class.
        Conflict: somebody else looked through this stretch at the same time.
    """
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    start = queue.looked_until(model) or since or midnight - timedelta(days=1)
    end = (now - LAG).replace(microsecond=0)
    room = min(_allowed(plan, now - midnight) - queue.asked_since(model, midnight), plan.most_waiting - waiting)
    nothing = _why_none(start, end, room, plan, waiting)
    if nothing:
        return Filled(since=start, until=end, read=0, choices=(), added=0, why_none=nothing)
    rows = reading.log(predictions, model, Window(start=start, end=end)).where(ds.field("track") != "shadow")
    candidates = list(_candidates(rows, plan.margin))
    choices = choose(candidates, room, plan.shares)
    cases = _cases(rows, choices)
    batch = Batch(model=model, since=start, until=end, read=len(candidates), now=now, due=now + plan.due)
    labels = {row.label for row in candidates} | _answered(models, model, cases)
    return Filled(since=start, until=end, read=len(candidates), choices=choices, added=queue.put(batch, cases, labels))


def _allowed(plan: Plan, of_the_day: timedelta) -> int:
    """Reviews that may have been asked for by now: what all runs of the day up to this one may use."""
    run = min(plan.runs - 1, int(of_the_day / timedelta(days=1) * plan.runs))
    return math.ceil(plan.capacity * (run + 1) / plan.runs)


def _why_none(start: datetime, end: datetime, room: int, plan: Plan, waiting: int) -> str | None:
    if end <= start:
        return f"The log was looked through up to {start:%Y-%m-%d %H:%M:%S} UTC already; the last two minutes wait for the next run."
    if room > 0:
        return None
    if waiting >= plan.most_waiting:
        return f"{waiting} reviews wait, and --most-waiting is {plan.most_waiting}: people are behind. Nothing was added, and nothing of the log is left out: the next run begins where this one would have."
    return (
        f"What people have time for today (--capacity {plan.capacity}) is asked for already. The next run begins where this one would have."
    )


def _candidates(rows: reading.Rows, margin: str | None) -> Iterator[Candidate]:
    column = _CERTAIN if margin is None else f"{OUTPUT}{margin}"
    if column not in rows.schema.names:
        there = ", ".join(name.removeprefix(OUTPUT) for name in rows.schema.names if name.startswith(OUTPUT)) or "none"
        raise ConfigError(f"The log has no output {margin!r}. It has: {there}. Name one: --margin OUTPUT")
    for batch in rows.batches(list(dict.fromkeys(["prediction_id", "row", "label", column]))):
        for each in batch.to_pylist():
            if each["label"]:
                yield Candidate(
                    prediction_id=each["prediction_id"],
                    row=each["row"],
                    label=clean_label(each["label"]),
                    certainty=_certainty(each[column]),
                )


def _certainty(value: Any) -> float | None:
    """A confidence as it is; of a score for each class the margin between the first two."""
    if isinstance(value, list):
        first, second = sorted((score for score in value if score is not None), reverse=True)[:2] if len(value) > 1 else (None, None)
        value = first - second if first is not None and second is not None else None
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _cases(rows: reading.Rows, choices: Sequence[Choice]) -> list[NewCase]:
    """What was chosen, with all that the log holds of it."""
    wanted = {choice.candidate.key: choice for choice in choices}
    names = [name for name in rows.schema.names if name.startswith(FEATURE)]
    of_chosen = rows.where(ds.field("prediction_id").isin(pa.array(sorted({key[0] for key in wanted}), pa.string())))
    found: dict[tuple[str, int], NewCase] = {}
    for batch in of_chosen.batches(["prediction_id", "row", "version", "time", "confidence", *names]):
        for each in batch.to_pylist():
            choice = wanted.get((each["prediction_id"], each["row"]))
            if choice is not None:
                shown = {name.removeprefix(FEATURE): plain(each[name]) for name in names}
                found[choice.candidate.key] = NewCase(
                    choice=choice, version=each["version"], time=each["time"], features=shown, confidence=_certainty(each["confidence"])
                )
    return [found[choice.candidate.key] for choice in choices if choice.candidate.key in found]


def plain(value: Any) -> Any:
    """A value of the log as JSON can hold it."""
    match value:
        case None | bool() | int():
            return value
        case float():
            return value if math.isfinite(value) else str(value)
        case list():
            return [plain(each) for each in value]
        case Mapping():
            return {str(name): plain(each) for name, each in value.items()}
        case bytes():
            return plain(value.decode("utf-8", "replace"))
        case _:
            return str(value).replace("\0", "\N{REPLACEMENT CHARACTER}")[:_LONGEST_VALUE]


def _answered(models: Path | None, model: str, cases: Iterable[NewCase]) -> set[str]:
    """Classes that the versions answered when they were judged: rare ones may not have been predicted lately."""
    if models is None:
        return set()
    paths = {models / model / str(case.version) / store.TRAINING_STATISTICS for case in cases}
    return {clean_label(label) for path in paths if path.is_file() for label in _labels_in(path) if clean_label(label)}


def _labels_in(path: Path) -> Iterator[str]:
    from google.protobuf.message import DecodeError
    from tensorflow_metadata.proto.v0 import statistics_pb2

    statistics = statistics_pb2.DatasetFeatureStatisticsList()
    try:
        statistics.ParseFromString(path.read_bytes())
    except DecodeError as error:
        raise ConfigError(f"{path} is damaged: {error}. Publish the version anew.") from error
    for dataset in statistics.datasets:
        if dataset.name == _ANSWERS:
            for feature in dataset.features:
                if (feature.name or ".".join(feature.path.step)) == "label":
                    yield from (bucket.label for bucket in feature.string_stats.rank_histogram.buckets)
