"""What the first model must beat: answers that need no model, only counting the training rows, or one that anybody could fit.

A baseline answers in the form in which a served model does (`label`, `scores`, `score`, `value`), so that everything after
this module treats it as one more model. Pure over Arrow and numpy. The story goes on in `answers.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mlpipelines.evaluation.answers import Floats, Ids, Outputs, flags_of
from mlpipelines.evaluation.isolation_forest import forest_scores, readable
from mlpipelines.project import Baseline, ColumnType, Label

_NULL = "\0missing"


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineAnswers:
    """A baseline's outputs for the test rows."""

    outputs: Outputs
    """For similarity the label only: there is no embedding, and neighbours are those of chance."""
    classes: tuple[str, ...] = ()
    """What the columns of `scores` stand for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Groups:
    """Training and test rows by the value of the baseline's column; without a column all rows are one group."""

    train: Ids
    """The group of each training row [rows]; -1 where no test row has its value."""
    test: Ids
    """The group of each test row [rows]."""
    count: int


def columns_needed(baseline: Baseline, label: Label, features: Mapping[str, ColumnType]) -> list[str]:
    """The training columns that the baseline counts, or learns from."""
    if baseline.kind == "isolation_forest":
        return list(readable(features))
    return [label.column, *([baseline.column] if baseline.column else [])]


def describe(baseline: Baseline, label: Label) -> str:
    """The baseline's name, as a verdict says it."""
    if baseline.kind == "isolation_forest":
        return "isolation forest"
    by = f" for each {baseline.column}" if baseline.column else ""
    return {
        "class": "most frequent class",
        "classes": "training share of each class",
        "flag": "training share of the flag",
        "number": "training mean",
    }[label.kind] + by


def answer(
    baseline: Baseline, label: Label, train: pa.Table, test: pa.Table, *, task: str, features: Mapping[str, ColumnType]
) -> BaselineAnswers:
    """What the baseline, fitted on `train`, answers for the rows of `test`.

    A value's own frequencies are mixed with one row's weight of the overall ones: a value that training has not seen gets
    the overall answer, and ties go to what is more frequent overall.

    Args:
        baseline: which one.
        label: what is counted; for a label that training rows do not have, every row gets the same score.
        train: training rows with the columns of `columns_needed`, as far as they are there.
        test: test rows.
        task: the project's task.
        features: the project's features, for the baseline that reads them.
    """
    if baseline.kind == "isolation_forest":
        known = {name: kind for name, kind in readable(features).items() if name in train.column_names}
        return BaselineAnswers(outputs={"score": forest_scores(train, test, known) if known and len(train) else np.zeros(len(test))})
    if label.column not in train.column_names:
        return BaselineAnswers(outputs={"score": np.zeros(len(test))})
    return _counted(baseline, label, train, test, task)


def _counted(baseline: Baseline, label: Label, train: pa.Table, test: pa.Table, task: str) -> BaselineAnswers:
    train = train.filter(pc.is_valid(train[label.column]))
    groups = _groups(train, test, baseline.column)
    column = train[label.column]
    if label.kind == "class":
        counted = _most_frequent(column, groups)
        return BaselineAnswers(outputs={"label": counted.outputs["label"]}) if task == "similarity" else counted
    if label.kind == "classes":
        return _shares(column, groups)
    if label.kind == "flag":
        return BaselineAnswers(outputs={"score": _means([flags_of(label, column).astype(np.float64)], groups)[:, 0]})
    return BaselineAnswers(outputs={"value": _means([np.asarray(column.cast(pa.float64()).to_numpy())], groups)[:, 0]})


def _most_frequent(column: pa.ChunkedArray, groups: _Groups) -> BaselineAnswers:
    coded = column.cast(pa.string()).combine_chunks().dictionary_encode()
    classes = tuple(coded.dictionary.to_pylist())
    ids = np.asarray(coded.indices.to_numpy(zero_copy_only=False), dtype=np.int64)
    overall = np.bincount(ids, minlength=len(classes)) / max(1, len(ids))
    seen = groups.train >= 0
    counts = np.bincount(groups.train[seen] * len(classes) + ids[seen], minlength=groups.count * len(classes)).reshape(groups.count, -1)
    scores = ((counts + overall) / (counts.sum(axis=1, keepdims=True) + 1))[groups.test]
    best = scores.argmax(axis=1)
    outputs = {"label": np.array(classes, dtype=object)[best], "confidence": scores[np.arange(len(best)), best], "scores": scores}
    return BaselineAnswers(outputs=outputs, classes=classes)


def _shares(column: pa.ChunkedArray, groups: _Groups) -> BaselineAnswers:
    lists = column.combine_chunks()
    coded = pc.list_flatten(lists).cast(pa.string()).dictionary_encode()
    rows = np.asarray(pc.list_parent_indices(lists).to_numpy(zero_copy_only=False), dtype=np.int64)
    ids = np.asarray(coded.indices.to_numpy(zero_copy_only=False), dtype=np.int64)
    has = np.zeros((len(lists), len(coded.dictionary)))
    has[rows, ids] = 1.0
    return BaselineAnswers(outputs={"scores": _means(list(has.T), groups)}, classes=tuple(coded.dictionary.to_pylist()))


def _means(columns: Sequence[Floats], groups: _Groups) -> Floats:
    """The mean of each column in each test row's group, [test rows, columns]."""
    seen = groups.train >= 0
    rows = np.bincount(groups.train[seen], minlength=groups.count)
    means = [
        (np.bincount(groups.train[seen], weights=values[seen], minlength=groups.count) + overall) / (rows + 1)
        for values, overall in ((values, values.mean() if len(values) else 0.0) for values in columns)
    ]
    return np.stack(means, axis=1)[groups.test]


def _groups(train: pa.Table, test: pa.Table, column: str | None) -> _Groups:
    if column is None or column not in train.column_names:
        return _Groups(train=np.zeros(len(train), dtype=np.int64), test=np.zeros(len(test), dtype=np.int64), count=1)
    ours, theirs = _as_text(train[column]), _as_text(test[column])
    values = pc.unique(theirs)
    return _Groups(train=_places(ours, values), test=_places(theirs, values), count=max(1, len(values)))


def _as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.fill_null(column.cast(pa.string()), _NULL)


def _places(column: pa.ChunkedArray, values: pa.Array) -> Ids:
    places = pc.fill_null(pc.index_in(column, value_set=values), -1)
    return np.asarray(places.to_numpy(), dtype=np.int64)
