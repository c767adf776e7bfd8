"""What was true and what a model answered, in one form for every task: the arrays that metrics and verdicts are made of.

A project's label may be text, a flag, a list or a number, and two models may know different classes. `space_of` makes one
list of classes that both sides and the truth fit in; `read_truth` and `read_answers` turn rows and model outputs into
`Truth` and `Answers` over it. The story goes on in `metrics.py`, which turns them into numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mlpipelines.errors import ConfigError, ModelRejected
from mlpipelines.evaluation.neighbours import chance_of_neighbours, judge_neighbours
from mlpipelines.project import Label

Floats = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Outputs = Mapping[str, npt.NDArray[Any]]
"""A model's answers by output name, one entry a row, as the serving signature gives them."""

SMALLEST_PROBABILITY = 1e-7
"""What `log_loss` takes for a probability of 0."""
_ROWS_AT_ONCE = 50_000
_TRUE = pa.array(["1", "1.0", "true"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """The label of each row, in the one form that its kind has."""

    classes: tuple[str, ...] = ()
    ids: Ids | None = None
    """Of `class` labels: the place in `classes` [rows]."""
    flags: Flags | None = None
    """Of `flag` labels [rows]."""
    many: Flags | None = None
    """Of `classes` labels [rows, classes]."""
    values: Floats | None = None
    """Of `number` labels [rows]."""

    def take(self, rows: Ids) -> Truth:
        """The truth of some rows."""
        return Truth(
            classes=self.classes,
            ids=_at(self.ids, rows),
            flags=_at(self.flags, rows),
            many=_at(self.many, rows),
            values=_at(self.values, rows),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What one model, or a baseline, answered about the same rows."""

    ids: Ids | None = None
    """The class [rows]."""
    scores: Floats | None = None
    """For multilabel: a score of each class [rows, classes]."""
    score: Floats | None = None
    """For detection, higher for what is looked for [rows]."""
    values: Floats | None = None
    """For regression [rows]."""
    per_row: Mapping[str, Floats] = field(default_factory=dict)
    """Metrics that are means over rows: what each row adds [rows], NaN where the row has no say."""
    capacity: float | None = None
    """For detection: how many of these rows people look at, the highest scores first."""

    def take(self, rows: Ids) -> Answers:
        """The answers about some rows; of the capacity they keep what the whole set's threshold gives them."""
        share = None if self.capacity is None or self.score is None else float(looked_at(self.score, self.capacity)[rows].sum())
        return Answers(
            ids=_at(self.ids, rows),
            scores=_at(self.scores, rows),
            score=_at(self.score, rows),
            values=_at(self.values, rows),
            per_row={name: value[rows] for name, value in self.per_row.items()},
            capacity=share,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassSpace:
    """The classes that truth and both models are told in."""

    classes: tuple[str, ...]
    other: str | None = None
    """Where a class that is not listed belongs, if rare classes were folded in training."""

    def ids_of(self, names: pa.Array | pa.ChunkedArray) -> Ids:
        """The place of each name; -1 for a name that is not listed and has nowhere to belong."""
        places = pc.index_in(names.cast(pa.string()), value_set=pa.array(self.classes, pa.string()))
        rest = self.classes.index(self.other) if self.other is not None else -1
        return np.asarray(pc.fill_null(places, rest).to_numpy(zero_copy_only=False), dtype=np.int64)


def space_of(challenger: Sequence[str], others: Sequence[pa.Array | pa.ChunkedArray], other: str) -> ClassSpace:
    """The challenger's classes; and, unless it folds what is rare into `other`, every further name that occurs in `others`."""
    known = tuple(challenger)
    if other in known:
        return ClassSpace(classes=known, other=other)
    seen = {name for names in others for name in pc.unique(names.cast(pa.string())).to_pylist() if name is not None}
    return ClassSpace(classes=known + tuple(sorted(seen - set(known))))


def read_truth(label: Label, column: pa.ChunkedArray, space: ClassSpace) -> Truth:
    """The label column (without nulls) as `Truth`.

    Raises:
        ConfigError: the column does not hold what the label's kind says.
    """
    try:
        if label.kind == "class":
            return Truth(classes=space.classes, ids=space.ids_of(column))
        if label.kind == "flag":
            return Truth(flags=flags_of(label, column))
        if label.kind == "classes":
            return Truth(classes=space.classes, many=_many(column, space))
        return Truth(values=_floats(column.cast(pa.float64())))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ConfigError(
            f"label.column {label.column!r} is not of kind {label.kind!r}: {error}. Correct label.kind in project.yaml."
        ) from error


def flags_of(label: Label, column: pa.ChunkedArray) -> Flags:
    """A flag column without nulls as booleans: `label.positive`, or else what `ingest` writes for it, 1."""
    texts = column.cast(pa.string())
    found = pc.equal(texts, label.positive) if label.positive is not None else pc.is_in(pc.utf8_lower(texts), value_set=_TRUE)
    return np.asarray(found.to_numpy(), dtype=np.bool_)


def read_answers(
    truth: Truth,
    outputs: Outputs,
    classes: Sequence[str],
    space: ClassSpace,
    *,
    capacity: float | None = None,
    embeds: bool = False,
    who: str,
) -> Answers:
    """A model's outputs as `Answers` over `space`.

    Args:
        truth: the labels of the same rows; it decides which outputs matter.
        outputs: the model's answers.
        classes: the model's own classes, in the order of its scores.
        space: the classes to tell them in.
        capacity: how many rows people look at.
        embeds: whether answers are judged by their neighbours: those of the embedding, or of chance where there is none.
        who: the model's name in an error.

    Raises:
        ModelRejected: an output is missing or is not a number.
    """
    _require_numbers(outputs, who)
    if truth.flags is not None:
        score = _output(outputs, "score", who).reshape(-1)
        brier = (score - truth.flags) ** 2
        per_row = {"brier": brier} if score.size and score.min() >= 0 and score.max() <= 1 else {}
        return Answers(score=score, per_row=per_row, capacity=capacity)
    if truth.values is not None:
        return Answers(values=_output(outputs, "value", who).reshape(-1))
    if truth.many is not None:
        return Answers(scores=_aligned(_output(outputs, "scores", who), classes, space))
    if truth.ids is None:
        raise ConfigError("evaluation needs a label to judge by: set `label` in project.yaml (`use: evaluation` hides it from the model).")
    ids = space.ids_of(_texts(outputs["label"])) if "label" in outputs else None
    if embeds:
        return Answers(ids=ids, per_row=_neighbour_outcomes(truth.ids, outputs))
    if ids is None:
        raise ModelRejected(f"{who} has no output 'label'. Export the model again: `millrace run`.")
    return Answers(ids=ids, per_row=_score_outcomes(truth.ids, outputs["scores"], classes, space) if "scores" in outputs else {})


def looked_at(score: Floats, capacity: float) -> Floats:
    """Which rows people look at: 1 for the highest scores, as many as fit; rows that tie for the last places share them evenly."""
    places = min(capacity, len(score))
    if places <= 0 or not len(score):
        return np.zeros(len(score))
    cut = np.partition(score, len(score) - int(np.ceil(places)))[len(score) - int(np.ceil(places))]
    above, tied = score > cut, score == cut
    shares: Floats = np.where(tied, (places - above.sum()) / tied.sum(), above.astype(np.float64))
    return shares


def _score_outcomes(truth: Ids, scores: npt.NDArray[Any], classes: Sequence[str], space: ClassSpace) -> dict[str, Floats]:
    """What each row adds to log loss and top-3 accuracy, some rows at a time: a million rows of sixty scores are half a gigabyte."""
    chunks = [
        _chunk_outcomes(truth[start : start + _ROWS_AT_ONCE], _aligned(scores[start : start + _ROWS_AT_ONCE], classes, space))
        for start in range(0, len(truth), _ROWS_AT_ONCE)
    ]
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in (chunks[0] if chunks else ())}


def _chunk_outcomes(truth: Ids, scores: Floats) -> dict[str, Floats]:
    """Of equal scores the class with the lower id comes first; a class that the model does not know is never among the first."""
    own = np.where(truth >= 0, scores[np.arange(len(truth)), np.maximum(truth, 0)], 0.0)
    outcomes = {"log_loss": -np.log(np.clip(own, SMALLEST_PROBABILITY, 1.0))}
    if scores.shape[1] > 3:  # noqa: PLR2004  # top-3 of three classes is always right
        earlier = np.arange(scores.shape[1]) < truth[:, None]
        ahead = (scores > own[:, None]).sum(axis=1) + ((scores == own[:, None]) & earlier).sum(axis=1)
        outcomes["top3_accuracy"] = ((ahead < 3) & (own > 0)).astype(np.float64)  # noqa: PLR2004  # the 3 of top-3
    return outcomes


def _neighbour_outcomes(truth: Ids, outputs: Outputs) -> dict[str, Floats]:
    return dict(judge_neighbours(np.asarray(outputs["embedding"]), truth) if "embedding" in outputs else chance_of_neighbours(truth))


def _aligned(scores: npt.NDArray[Any], classes: Sequence[str], space: ClassSpace) -> Floats:
    """Scores over a model's own classes as scores over the space: what is folded adds up, what it does not know is 0."""
    out = np.zeros((len(scores), len(space.classes)))
    for own, place in enumerate(space.ids_of(pa.array(classes, pa.string()))):
        if place >= 0:
            out[:, place] += scores[:, own]
    return out


def _many(column: pa.ChunkedArray, space: ClassSpace) -> Flags:
    lists = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    parents = np.asarray(pc.list_parent_indices(lists).to_numpy(zero_copy_only=False), dtype=np.int64)
    ids = space.ids_of(pc.list_flatten(lists))
    many = np.zeros((len(lists), len(space.classes)), dtype=np.bool_)
    many[parents[ids >= 0], ids[ids >= 0]] = True
    return many


def _texts(values: npt.NDArray[Any]) -> pa.Array:
    return pa.array(
        list(values.reshape(-1)), pa.binary() if len(values) and isinstance(values.reshape(-1)[0], bytes) else pa.string()
    ).cast(pa.string())


def _floats(column: pa.ChunkedArray) -> Floats:
    return np.asarray(column.to_numpy(), dtype=np.float64)


def _output(outputs: Outputs, name: str, who: str) -> Floats:
    if name not in outputs:
        raise ModelRejected(
            f"{who} has no output {name!r}, only {', '.join(sorted(outputs)) or 'none'}. Export the model again: `millrace run`."
        )
    return np.asarray(outputs[name], dtype=np.float64)


def _require_numbers(outputs: Outputs, who: str) -> None:
    for name, values in outputs.items():
        if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
            rows = int((~np.isfinite(values)).reshape(len(values), -1).any(axis=1).sum())
            raise ModelRejected(
                f"{who} answers {name!r} with NaN or infinity for {rows:,} of {len(values):,} test rows. "
                "Look at the loss in TensorBoard; a missing float enters the graph as NaN and features.py must replace it."
            )


def _at(values: npt.NDArray[Any] | None, rows: Ids) -> Any:
    return None if values is None else values[rows]
