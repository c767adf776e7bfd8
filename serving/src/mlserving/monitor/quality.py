"""How right the answers were, as far as labels tell: counted batch by batch, told with intervals.

Labels seldom come from a fair sample. Who reviews looks at doubtful answers first, and then the share that is right among the labelled says
little about the rest. So accuracy is told twice: as labelled, and weighted to all answers of the window by how sure the model was (thirteen
strata of confidence; within one, labelled rows are taken to be like the others). And by source, for a reader who knows them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mlserving.monitor import intervals
from mlserving.monitor.intervals import Estimate
from mlserving.monitor.settings import MonitorSettings
from mlserving.predictions.records import OUTPUT

STRATA = (0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
"""Where confidence is cut: finer near 1, where most answers are."""
_PERIOD_SECONDS = {"day": 86_400, "week": 7 * 86_400}
_TRUE = ("1", "true")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassQuality:
    """One class among the labelled rows."""

    name: str
    rows: int
    precision: Estimate | None
    recall: Estimate | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Of the labelled rows of one group. Empty where there are none."""

    metrics: Mapping[str, Estimate] = field(default_factory=dict)
    classes: tuple[ClassQuality, ...] = ()
    by_source: Mapping[str, Estimate] = field(default_factory=dict)
    """`accuracy` of the labels of each source."""


class ClassCounter:
    """Answers of classes."""

    def __init__(self) -> None:
        self._cells: Counter[tuple[str, str]] = Counter()
        self._sources: Counter[tuple[str, bool]] = Counter()
        self._strata = np.zeros((len(STRATA) + 1, 3), np.int64)  # rows, labelled, right

    def add(self, batch: pa.RecordBatch) -> None:
        """Count a batch of predictions with their labels beside them."""
        truth, answer = batch["truth"], batch["label"].cast(pa.string())
        labelled = pc.and_(pc.is_valid(truth), pc.is_valid(answer))
        right = pc.fill_null(pc.equal(truth, answer), False)
        self._add_strata(batch, labelled, right)
        table = pa.table([truth, answer, batch["label_source"], right], ["truth", "answer", "source", "right"]).filter(labelled)
        for row in table.group_by(["truth", "answer"]).aggregate([([], "count_all")]).to_pylist():
            self._cells[row["truth"], row["answer"]] += row["count_all"]
        for row in table.group_by(["source", "right"]).aggregate([([], "count_all")]).to_pylist():
            self._sources[row["source"], row["right"]] += row["count_all"]

    def quality(self, confidence: float) -> Quality:
        """What was counted."""
        rows = sum(self._cells.values())
        right = sum(count for (truth, answer), count in self._cells.items() if truth == answer)
        accuracy = intervals.share(right, rows, confidence)
        if accuracy is None:
            return Quality()
        metrics = {"accuracy": accuracy, **intervals.macro(self._cells, confidence)}
        weighted = intervals.stratified([(int(all_), int(labelled), int(hits)) for all_, labelled, hits in self._strata], confidence)
        if weighted is not None:
            metrics["accuracy_weighted"] = weighted
        return Quality(metrics=metrics, classes=self._classes(confidence), by_source=self._by_source(confidence))

    def _add_strata(self, batch: pa.RecordBatch, labelled: pa.Array, right: pa.Array) -> None:
        sure = np.asarray(batch["confidence"].cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)
        kept = ~np.isnan(sure)
        strata = np.searchsorted(np.array(STRATA), sure[kept], "right")
        for place, chosen in enumerate((None, labelled, pc.and_(labelled, right))):
            weights = None if chosen is None else np.asarray(chosen.to_numpy(zero_copy_only=False), np.float64)[kept]
            self._strata[:, place] += np.bincount(strata, weights, len(STRATA) + 1).astype(np.int64)

    def _classes(self, confidence: float) -> tuple[ClassQuality, ...]:
        true: Counter[str] = Counter()
        answered: Counter[str] = Counter()
        for (truth, answer), count in self._cells.items():
            true[truth] += count
            answered[answer] += count
        found = [
            ClassQuality(
                name=name,
                rows=true[name],
                precision=intervals.share(self._cells[name, name], answered[name], confidence),
                recall=intervals.share(self._cells[name, name], true[name], confidence),
            )
            for name in sorted({*true, *answered})
        ]
        return tuple(sorted(found, key=lambda each: (-each.rows, each.name)))

    def _by_source(self, confidence: float) -> dict[str, Estimate]:
        found = {}
        for source in sorted({source for source, _ in self._sources}):
            right, wrong = self._sources[source, True], self._sources[source, False]
            estimate = intervals.share(right, right + wrong, confidence)
            if estimate is not None:
                found[source] = estimate
        return found


class NumberQualityCounter:
    """Answers that are quantities: sums of errors."""

    def __init__(self, output: str) -> None:
        self._output = OUTPUT + output
        self._rows, self._sums = 0, np.zeros(3)  # of |e|, e², e⁴

    def add(self, batch: pa.RecordBatch) -> None:
        """Count a batch of predictions with their labels beside them. A label that is no number counts as none."""
        if self._output not in batch.schema.names:
            return
        error = np.abs(_numbers(batch[self._output]) - _truths(batch["truth"]))
        error = error[np.isfinite(error)]
        self._rows += len(error)
        self._sums += (error.sum(), (error**2).sum(), (error**4).sum())

    def quality(self, confidence: float) -> Quality:
        """What was counted."""
        mae = intervals.mean(self._sums[0], self._sums[1], self._rows, confidence)
        rmse = intervals.root(intervals.mean(self._sums[1], self._sums[2], self._rows, confidence))
        return Quality(metrics={"mae": mae, "rmse": rmse}) if mae and rmse else Quality()


class CaseCounter:
    """Scores of rare cases: of each period the highest are what people look at. Nine bytes a row are kept."""

    def __init__(self, settings: MonitorSettings) -> None:
        self._settings = settings
        self._score = OUTPUT + settings.outputs.score
        self._parts: list[tuple[npt.NDArray[Any], ...]] = []

    def add(self, batch: pa.RecordBatch) -> None:
        """Take a batch of predictions with their labels beside them."""
        if self._score not in batch.schema.names:
            return
        truth = batch["truth"]
        positive = [self._settings.positive] if self._settings.positive is not None else list(_TRUE)
        flags = np.where(
            np.asarray(pc.is_null(truth)), -1, np.asarray(pc.is_in(pc.utf8_lower(truth), value_set=pa.array([p.lower() for p in positive])))
        )
        seconds = np.asarray(batch["time"].cast(pa.int64()).to_numpy(), np.int64) // 1_000_000
        capacity = self._settings.capacity
        length = _PERIOD_SECONDS.get(capacity.per if capacity else "set")
        periods = seconds // length if length else np.zeros_like(seconds)
        self._parts.append((_numbers(batch[self._score]).astype(np.float32), flags.astype(np.int8), periods.astype(np.int32)))

    def quality(self, confidence: float) -> Quality:
        """Recall and precision among what people look at, as far as it is labelled; nothing without a capacity."""
        capacity = self._settings.capacity
        if capacity is None or not self._parts:
            return Quality()
        scores, flags, periods = (np.concatenate(part) for part in zip(*self._parts, strict=True))
        seen = np.zeros(len(scores), np.bool_)
        for period in np.unique(periods):
            rows = np.flatnonzero(periods == period)
            seen[rows[np.argsort(-np.nan_to_num(scores[rows], nan=-np.inf), kind="stable")[: capacity.cases]]] = True
        cases = flags == 1
        metrics = {
            "recall_at_capacity": intervals.share(int((cases & seen).sum()), int(cases.sum()), confidence),
            "precision_at_capacity": intervals.share(int((cases & seen).sum()), int(((flags >= 0) & seen).sum()), confidence),
        }
        return Quality(metrics={name: estimate for name, estimate in metrics.items() if estimate is not None})


class NothingCounter:
    """For tasks whose answers are compared with nothing."""

    def add(self, batch: pa.RecordBatch) -> None:
        """Take nothing."""

    def quality(self, confidence: float) -> Quality:  # noqa: ARG002  # as its siblings
        """Nothing."""
        return Quality()


Counting = ClassCounter | NumberQualityCounter | CaseCounter | NothingCounter


def counter_of(settings: MonitorSettings) -> Counting:
    """What counts answers of the settings' task."""
    if settings.task == "classification":
        return ClassCounter()
    if settings.task == "regression":
        return NumberQualityCounter(settings.outputs.value)
    return CaseCounter(settings) if settings.task == "detection" else NothingCounter()


def _numbers(column: pa.Array) -> npt.NDArray[np.float64]:
    return np.asarray(pc.cast(column, pa.float64()).to_numpy(zero_copy_only=False), np.float64)


def _truths(column: pa.Array) -> npt.NDArray[np.float64]:
    """Labels as numbers; NaN where there is none, or where it is no number."""

    def number(text: str | None) -> float:
        try:
            return float(text) if text is not None else np.nan
        except ValueError:
            return np.nan

    return np.array([number(text) for text in column.to_pylist()], np.float64)
