"""Which metrics there are, and how each is computed from truth and answers.

Every metric is a function of weights over units (see `bootstrap.py`), so the value on the test set and its bootstrap
replicates come from the same lines. What counts alike is counted once: accuracy and F1 depend only on (true, challenger's,
champion's class) triples, of which a test set has a few thousand, however many rows. `CATALOGUE` is what the reference page
and the check of `evaluation.metric` are made from. The story goes on in `judge.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from mlpipelines.errors import ConfigError
from mlpipelines.evaluation.answers import Answers, Flags, Floats, Ids, Truth
from mlpipelines.evaluation.bootstrap import Family, Paired
from mlpipelines.project import Project

MULTILABEL_THRESHOLD = 0.5
GROUPS = 20_000
"""How many groups of rows are resampled at most for metrics that are made of sums."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric, for people and for the check of project.yaml."""

    tasks: tuple[str, ...]
    summary: str
    higher_is_better: bool = True
    needs_capacity: bool = False


CATALOGUE: Mapping[str, Metric] = {
    "accuracy": Metric(
        tasks=("classification", "similarity"),
        summary="Share of rows whose predicted class is the true one. Similarity: where the model answers with a `label`.",
    ),
    "macro_f1": Metric(
        tasks=("classification", "similarity", "multilabel"),
        summary="Mean of the classes' F1, each class alike. Classes that are neither true nor predicted in any row do not count. "
        "Multilabel: a class is predicted where its score is at least 0.5.",
    ),
    "weighted_f1": Metric(tasks=("classification", "similarity"), summary="Mean of the classes' F1, weighted by their rows."),
    "log_loss": Metric(
        tasks=("classification",),
        summary="Mean of -ln(score of the true class); a score of 0 counts as 1e-7.",
        higher_is_better=False,
    ),
    "top3_accuracy": Metric(
        tasks=("classification",), summary="Share of rows whose true class is among the three highest scores (four classes or more)."
    ),
    "pr_auc": Metric(
        tasks=("detection",),
        summary="Average precision: the area under the precision-recall curve as a step function, without interpolation.",
    ),
    "roc_auc": Metric(tasks=("detection",), summary="Chance that a positive row scores above a negative one; ties count half."),
    "recall_at_capacity": Metric(
        tasks=("detection",),
        summary="Share of the positive rows that people see who look at the highest scores, as many as `evaluation.capacity` allows. "
        "The capacity of the test set is `cases` times the days or weeks that it spans (`set`: once). Rows that tie for the last places "
        "share them: the metric is what a random choice among them gives on average.",
        needs_capacity=True,
    ),
    "precision_at_capacity": Metric(
        tasks=("detection",), summary="Share of positive rows among those that people look at, chosen in the same way.", needs_capacity=True
    ),
    "best_f1": Metric(tasks=("detection",), summary="The highest F1 that any threshold on the score gives."),
    "brier": Metric(
        tasks=("detection",),
        summary="Mean squared distance between score and flag, where scores lie between 0 and 1.",
        higher_is_better=False,
    ),
    "micro_f1": Metric(tasks=("multilabel",), summary="F1 over all (row, class) decisions together, at a score of 0.5."),
    "mean_average_precision": Metric(tasks=("multilabel",), summary="Mean of the classes' average precision, over classes that have rows."),
    "recall_at_1": Metric(
        tasks=("similarity",),
        summary="Share of rows whose nearest other row of the test set (cosine) has their label. Rows without a partner do not count.",
    ),
    "recall_at_5": Metric(tasks=("similarity",), summary="Share of rows that have a row of their label among the five nearest."),
    "knn_accuracy": Metric(tasks=("similarity",), summary="Share of rows whose five nearest, voting by cosine, name their label."),
    "mae": Metric(tasks=("regression",), summary="Mean absolute error, in the label's unit.", higher_is_better=False),
    "rmse": Metric(tasks=("regression",), summary="Root of the mean squared error, in the label's unit.", higher_is_better=False),
    "r2": Metric(tasks=("regression",), summary="Share of the label's variance that is explained."),
}


def require_metrics(project: Project) -> None:
    """Check that the project's deciding metric and its guards are ones that its task has. Cheap: call it before any work.

    Raises:
        ConfigError: naming the field and what may stand there.
    """
    rule = project.evaluation
    fields = {"evaluation.metric": rule.metric, **{f"evaluation.guards.{i}.metric": guard.metric for i, guard in enumerate(rule.guards)}}
    available = [name for name, metric in CATALOGUE.items() if project.task in metric.tasks]
    for field, name in fields.items():
        if name not in available:
            raise ConfigError(
                f"{field} is {name!r}, which a project of task {project.task!r} does not have. "
                f"Set it to one of {', '.join(available)} in project.yaml; docs/reference/metrics.md explains them."
            )
        if CATALOGUE[name].needs_capacity and rule.capacity is None:
            raise ConfigError(f"{field} is {name!r}, which needs evaluation.capacity, for example `capacity: {{cases: 50, per: day}}`.")
    if project.label is None and len(project.features) == 1:
        raise ConfigError(
            "Without `label`, a detector is judged by rows whose features do not belong together, and this project has one feature only. "
            "Name more features, or set `label` in project.yaml (`use: evaluation` hides it from the model)."
        )


def paired_metrics(truth: Truth, challenger: Answers, champion: Answers) -> list[Paired]:
    """All metrics that these answers allow, ready to be sampled: one entry for each kind of unit."""
    paired = []
    if truth.ids is not None and challenger.ids is not None:
        paired.append(_confusions(truth.ids, challenger.ids, champion.ids, len(truth.classes)))
    ones = np.ones(_rows(truth), dtype=np.int64)
    if truth.flags is not None:
        paired.append(Paired(counts=ones, challenger=_ranking(truth.flags, challenger), champion=_ranking(truth.flags, champion)))
    if truth.many is not None:
        paired.append(Paired(counts=ones, challenger=_multilabel(truth.many, challenger), champion=_multilabel(truth.many, champion)))
    groups = ones[: GROUPS if len(ones) > 2 * GROUPS else None]
    if truth.values is not None:
        paired.append(Paired(counts=groups, challenger=_regression(truth.values, challenger), champion=_regression(truth.values, champion)))
    if challenger.per_row:
        paired.append(Paired(counts=groups, challenger=_means(challenger.per_row), champion=_means(champion.per_row)))
    return paired


def metric_values(families: Iterable[Paired]) -> dict[str, float]:
    """The challenger's metrics as observed, without resampling."""
    return {
        name: float(value[0]) for paired in families for name, value in paired.challenger(paired.counts[None, :].astype(np.float64)).items()
    }


def _confusions(truth: Ids, challenger: Ids, champion: Ids | None, classes: int) -> Paired:
    """Accuracy and F1 over the distinct (true, challenger's, champion's class) triples. -1 stands for a class outside the space."""
    second = np.full_like(truth, -1) if champion is None else champion
    base = classes + 1
    codes, counts = np.unique(((truth + 1) * base + challenger + 1) * base + second + 1, return_counts=True)
    true = codes // (base * base) - 1
    ours, theirs = codes // base % base - 1, codes % base - 1
    return Paired(
        counts=counts.astype(np.int64),
        challenger=confusion_family(true, ours),
        champion=confusion_family(true, theirs) if champion is not None else lambda _: {},
    )


def confusion_family(true: Ids, predicted: Ids) -> Family:
    """`accuracy`, `macro_f1` and `weighted_f1` from true and predicted class ids of each unit [units]."""
    classes = int(max(true.max(), predicted.max())) + 2
    hit = np.flatnonzero((true == predicted) & (true >= 0))

    def measure(weights: Floats) -> dict[str, Floats]:
        right = _sums(weights[:, hit], true[hit] + 1, classes)
        support, answered = _sums(weights, true + 1, classes), _sums(weights, predicted + 1, classes)
        total = weights.sum(axis=1)
        f1 = np.nan_to_num(_ratio(2 * right, support + answered))
        occurs = (support + answered) > 0
        return {
            "accuracy": _ratio(right.sum(axis=1), total),
            "macro_f1": _ratio(f1.sum(axis=1), occurs.sum(axis=1).astype(np.float64)),
            "weighted_f1": _ratio((f1 * support).sum(axis=1), total),
        }

    return measure


def ranking_family(flags: Flags, score: Floats, capacity: float | None) -> Family:
    """`pr_auc`, `roc_auc`, `best_f1` and, with a capacity, recall and precision at it; undefined (NaN) with rows of one kind only."""
    order = np.argsort(-score, kind="stable")
    starts, with_positives = _threshold_groups(flags[order], score[order])
    positives = order[flags[order]]
    first_positives = np.searchsorted(np.flatnonzero(flags[order]), starts[with_positives])

    def measure(weights: Floats) -> dict[str, Floats]:
        taken = np.cumsum(np.add.reduceat(np.take(weights, order, axis=1), starts, axis=1), axis=1)
        gained = np.zeros_like(taken)
        if len(positives):
            gained[:, with_positives] = np.add.reduceat(np.take(weights, positives, axis=1), first_positives, axis=1)
        found = np.cumsum(gained, axis=1)
        values = _areas(taken, found, gained)
        if capacity is not None:
            values |= _at_capacity(taken, found, capacity)
        return values

    return measure


def _threshold_groups(flags: Flags, score: Floats) -> tuple[Ids, Ids]:
    """Where the groups of rows begin that any metric of a ranking can tell apart, and which of these groups hold positives.

    Rows that tie belong together; so do neighbouring negatives with no positive between them, because no curve turns there.
    With few positives that leaves few groups, however many rows.
    """
    tie_starts = np.flatnonzero(np.append(True, np.diff(score) != 0))
    holds = np.add.reduceat(flags.astype(np.int64), tie_starts) > 0
    kept = np.append(True, holds[1:] | holds[:-1])
    return tie_starts[kept], np.flatnonzero(holds[kept])


def _areas(taken: Floats, found: Floats, gained: Floats) -> dict[str, Floats]:
    """Areas under both curves, and the best F1, from cumulative counts [resamples, groups] of rows and of positives."""
    total, positives = taken[:, -1], found[:, -1]
    wrong = np.diff(taken - found, axis=1, prepend=0)
    precision = np.nan_to_num(_ratio(found, taken))
    above = (wrong * (found - gained / 2)).sum(axis=1)
    return {
        "pr_auc": _ratio((gained * precision).sum(axis=1), positives),
        "roc_auc": _ratio(above, positives * (total - positives)),
        "best_f1": _ratio((2 * found / np.maximum(taken + positives[:, None], 1)).max(axis=1), (positives > 0).astype(np.float64)),
    }


def _at_capacity(taken: Floats, found: Floats, capacity: float) -> dict[str, Floats]:
    places = np.minimum(capacity, taken[:, -1])
    rows = np.arange(len(taken))
    last = np.minimum((taken < places[:, None]).sum(axis=1), taken.shape[1] - 1)
    before = np.where(last > 0, taken[rows, last - 1], 0.0), np.where(last > 0, found[rows, last - 1], 0.0)
    share = np.nan_to_num(_ratio(places - before[0], taken[rows, last] - before[0]))
    seen = before[1] + share * (found[rows, last] - before[1])
    return {"recall_at_capacity": _ratio(seen, found[:, -1]), "precision_at_capacity": _ratio(seen, places)}


def _ranking(flags: Flags, answers: Answers) -> Family:
    assert answers.score is not None
    return ranking_family(flags, answers.score, answers.capacity)


def _multilabel(many: Flags, answers: Answers) -> Family:
    assert answers.scores is not None
    predicted = answers.scores >= MULTILABEL_THRESHOLD
    right, guessed, true = (many & predicted).astype(np.float64), predicted.astype(np.float64), many.astype(np.float64)
    rankings = [ranking_family(many[:, i], answers.scores[:, i], None) for i in range(many.shape[1])]

    def measure(weights: Floats) -> dict[str, Floats]:
        hits, answered, support = weights @ right, weights @ guessed, weights @ true
        f1 = np.nan_to_num(_ratio(2 * hits, answered + support))
        occurs = (answered + support > 0).sum(axis=1).astype(np.float64)
        areas = np.stack([family(weights)["pr_auc"] for family in rankings], axis=1)
        known = ~np.isnan(areas)
        return {
            "micro_f1": _ratio(2 * hits.sum(axis=1), (answered + support).sum(axis=1)),
            "macro_f1": _ratio(f1.sum(axis=1), occurs),
            "mean_average_precision": _ratio(np.nan_to_num(areas).sum(axis=1), known.sum(axis=1).astype(np.float64)),
        }

    return measure


def _regression(true: Floats, answers: Answers) -> Family:
    assert answers.values is not None
    error = answers.values - true
    centred = true - true.mean()  # the variance in a resample is then a difference of small numbers
    columns = grouped(np.stack([np.abs(error), error**2, centred, centred**2, np.ones(len(true))], axis=1))

    def measure(weights: Floats) -> dict[str, Floats]:
        *sums, total = (weights @ columns).T
        absolute, squared, mean, square = (column / total for column in sums)
        return {"mae": absolute, "rmse": np.sqrt(squared), "r2": 1 - _ratio(squared, square - mean**2)}

    return measure


def _means(per_row: Mapping[str, Floats]) -> Family:
    names = list(per_row)
    if not names:
        return lambda _: {}
    values = np.stack([per_row[name] for name in names], axis=1)
    sums, known = grouped(np.nan_to_num(values)), grouped((~np.isnan(values)).astype(np.float64))

    def measure(weights: Floats) -> dict[str, Floats]:
        return dict(zip(names, _ratio(weights @ sums, weights @ known).T, strict=True))

    return measure


def grouped(columns: Floats) -> Floats:
    """Rows added up in random groups, [rows, n] to [groups, n], where there are many more rows than `GROUPS`.

    What is only ever summed need not be resampled row by row: resampling random groups of equal size gives the sums the same
    expectation and variance (the random group method; Wolter, *Introduction to Variance Estimation*, 2007, chapter 2), and the
    cost stops growing with the rows. The grouping depends on the number of rows alone, so that both models share it.
    """
    rows = len(columns)
    if rows <= 2 * GROUPS:
        return columns
    shuffled = columns[np.random.default_rng(rows).permutation(rows)]
    return np.add.reduceat(shuffled, np.linspace(0, rows, GROUPS, endpoint=False).astype(np.int64), axis=0)


def _sums(weights: Floats, ids: Ids, classes: int) -> Floats:
    """The weights of each class added up: [resamples, units] to [resamples, classes]."""
    out = np.zeros((len(weights), classes))
    if len(ids):
        order = np.argsort(ids, kind="stable")
        present, starts = np.unique(ids[order], return_index=True)
        out[:, present] = np.add.reduceat(weights[:, order], starts, axis=1)
    return out


def _ratio(above: Floats, below: Floats) -> Floats:
    """`above / below`, NaN where `below` is 0."""
    out = np.full(np.broadcast(above, below).shape, np.nan)
    np.divide(above, below, out=out, where=below > 0)
    return out


def _rows(truth: Truth) -> int:
    return next(len(values) for values in (truth.ids, truth.flags, truth.many, truth.values) if values is not None)
