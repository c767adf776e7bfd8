"""Metrics agree with scikit-learn, as observed and in every resample."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from sklearn import metrics as sk

from mlpipelines.errors import ConfigError, ModelRejected
from mlpipelines.evaluation.answers import Answers, ClassSpace, Truth, looked_at, read_answers, read_truth, space_of
from mlpipelines.evaluation.bootstrap import Floats, Paired, sample
from mlpipelines.evaluation.metrics import (
    CATALOGUE,
    GROUPS,
    confusion_family,
    metric_values,
    paired_metrics,
    ranking_family,
    require_metrics,
)
from mlpipelines.project import Label, Project
from mlpipelines.project_file import parse_project


def rng(seed: int = 3) -> np.random.Generator:
    return np.random.default_rng(seed)


def a_resample(rows: int, seed: int = 3) -> Floats:
    """Weights of one bootstrap resample, [1, rows]."""
    return np.bincount(rng(seed).integers(0, rows, rows), minlength=rows).astype(np.float64)[None, :]


def class_rows(rows: int = 2000, classes: int = 12, seed: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True ids (long tail), scores that are right about half of the time, and their argmax."""
    source = rng(seed)
    true = np.minimum(source.geometric(0.3, rows) - 1, classes - 1)
    scores = source.dirichlet(np.ones(classes), rows) + 0.5 * np.eye(classes)[true] * source.random((rows, 1))
    scores /= scores.sum(axis=1, keepdims=True)
    return true, scores, scores.argmax(axis=1)


def flag_rows(rows: int = 1500, seed: int = 3, ties: bool = True) -> tuple[np.ndarray, np.ndarray]:
    source = rng(seed)
    flags = source.random(rows) < 0.1
    score = np.clip(source.normal(0.3 + 0.2 * flags, 0.15), 0, 1)
    return flags, score.round(2) if ties else score


@pytest.mark.parametrize("resampled", [False, True])
def test_accuracy_and_f1_are_those_of_scikit_learn(resampled: bool) -> None:
    true, _, predicted = class_rows()
    weights = a_resample(len(true)) if resampled else np.ones((1, len(true)))
    rows = np.repeat(np.arange(len(true)), weights[0].astype(int))
    ours = confusion_family(true, predicted)(weights)
    assert ours["accuracy"][0] == pytest.approx(sk.accuracy_score(true[rows], predicted[rows]))
    assert ours["macro_f1"][0] == pytest.approx(sk.f1_score(true[rows], predicted[rows], average="macro", zero_division=0))
    assert ours["weighted_f1"][0] == pytest.approx(sk.f1_score(true[rows], predicted[rows], average="weighted", zero_division=0))


@pytest.mark.parametrize("resampled", [False, True])
@pytest.mark.parametrize("ties", [False, True])
def test_areas_under_curves_are_those_of_scikit_learn(resampled: bool, ties: bool) -> None:
    flags, score = flag_rows(ties=ties)
    weights = a_resample(len(flags)) if resampled else np.ones((1, len(flags)))
    rows = np.repeat(np.arange(len(flags)), weights[0].astype(int))
    ours = ranking_family(flags, score, None)(weights)
    precision, recall, _ = sk.precision_recall_curve(flags[rows], score[rows])
    assert ours["pr_auc"][0] == pytest.approx(sk.average_precision_score(flags[rows], score[rows]))
    assert ours["roc_auc"][0] == pytest.approx(sk.roc_auc_score(flags[rows], score[rows]))
    assert ours["best_f1"][0] == pytest.approx(np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12)))


def test_log_loss_and_top3_are_those_of_scikit_learn() -> None:
    true, scores, predicted = class_rows()
    space = ClassSpace(classes=tuple(f"c{i:02}" for i in range(12)))
    names = np.array(space.classes, dtype=object)
    truth = Truth(classes=space.classes, ids=true)
    answers = read_answers(truth, {"label": names[predicted], "scores": scores}, space.classes, space, who="the challenger")
    found = metric_values(paired_metrics(truth, answers, answers))
    assert found["log_loss"] == pytest.approx(sk.log_loss(true, scores, labels=range(12)))
    assert found["top3_accuracy"] == pytest.approx(sk.top_k_accuracy_score(true, scores, k=3, labels=range(12)))
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(true, predicted))


def test_multilabel_metrics_are_those_of_scikit_learn() -> None:
    source = rng()
    many = source.random((800, 6)) < [0.5, 0.3, 0.2, 0.1, 0.05, 0.02]
    scores = np.clip(source.normal(0.3 + 0.4 * many, 0.2), 0, 1)
    truth, answers = Truth(classes=tuple("abcdef"), many=many), Answers(scores=scores)
    found = metric_values(paired_metrics(truth, answers, answers))
    assert found["micro_f1"] == pytest.approx(sk.f1_score(many, scores >= 0.5, average="micro"))
    assert found["macro_f1"] == pytest.approx(sk.f1_score(many, scores >= 0.5, average="macro", zero_division=0))
    assert found["mean_average_precision"] == pytest.approx(sk.average_precision_score(many, scores, average="macro"))


def test_regression_metrics_are_those_of_scikit_learn() -> None:
    true = rng().normal(500, 40, 900)
    values = true + rng(4).normal(3, 20, 900)
    answers = Answers(values=values)
    found = metric_values(paired_metrics(Truth(values=true), answers, answers))
    assert found["mae"] == pytest.approx(sk.mean_absolute_error(true, values))
    assert found["rmse"] == pytest.approx(sk.root_mean_squared_error(true, values))
    assert found["r2"] == pytest.approx(sk.r2_score(true, values))


def test_recall_at_capacity_counts_what_people_see_and_shares_ties() -> None:
    flags = np.array([1, 0, 1, 1, 0, 0, 0, 1], dtype=bool)
    score = np.array([9, 8, 7, 5, 5, 5, 5, 1], dtype=float)
    found = ranking_family(flags, score, 5)(np.ones((1, 8)))
    assert found["recall_at_capacity"][0] == pytest.approx((2 + 2 * 1 / 4) / 4)
    assert found["precision_at_capacity"][0] == pytest.approx((2 + 2 * 1 / 4) / 5)
    assert looked_at(score, 5).tolist() == [1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0]
    assert looked_at(score, 100).tolist() == [1] * 8
    assert looked_at(score, 0).tolist() == [0] * 8


def test_a_score_that_knows_nothing_finds_the_share_that_chance_finds() -> None:
    flags, _ = flag_rows()
    found = ranking_family(flags, np.full(len(flags), 0.1), 150)(np.ones((1, len(flags))))
    assert found["recall_at_capacity"][0] == pytest.approx(150 / len(flags))
    assert found["roc_auc"][0] == pytest.approx(0.5)


def test_a_slice_keeps_the_threshold_of_the_whole_set() -> None:
    flags, score = flag_rows(ties=False)
    truth, answers = Truth(flags=flags), Answers(score=score, capacity=100)
    rows = np.arange(0, len(flags), 3)
    found = metric_values(paired_metrics(truth.take(rows), answers.take(rows), answers.take(rows)))
    seen = looked_at(score, 100)[rows]
    assert found["recall_at_capacity"] == pytest.approx((seen * flags[rows]).sum() / flags[rows].sum())


def test_metrics_are_not_defined_where_only_one_kind_of_row_is_left() -> None:
    found = ranking_family(np.zeros(10, dtype=bool), np.arange(10.0), 3)(np.ones((1, 10)))
    assert np.isnan(found["pr_auc"][0])
    assert np.isnan(found["roc_auc"][0])
    assert np.isnan(found["recall_at_capacity"][0])


def test_neighbours_find_their_label_and_chance_is_what_an_empty_embedding_gets() -> None:
    source = rng()
    labels = source.integers(0, 30, 600)
    centres = source.normal(size=(30, 16))
    truth, space = Truth(classes=tuple(f"{i}" for i in range(30)), ids=labels), ClassSpace(classes=())
    near = read_answers(truth, {"embedding": centres[labels] + source.normal(0, 0.05, (600, 16))}, (), space, embeds=True, who="it")
    found = metric_values(paired_metrics(truth, near, near))
    assert found == pytest.approx({"recall_at_1": 1.0, "recall_at_5": 1.0, "knn_accuracy": 1.0})
    chance = metric_values(paired_metrics(truth, read_answers(truth, {}, (), space, embeds=True, who="chance"), near))
    random = [
        metric_values(
            paired_metrics(truth, read_answers(truth, {"embedding": rng(i).normal(size=(600, 16))}, (), space, embeds=True, who="it"), near)
        )
        for i in range(8)
    ]
    assert chance["recall_at_1"] == pytest.approx(np.mean([r["recall_at_1"] for r in random]), abs=0.02)
    assert chance["recall_at_5"] == pytest.approx(np.mean([r["recall_at_5"] for r in random]), abs=0.03)


def test_classes_that_one_model_folds_are_judged_alike_for_both() -> None:
    true = pa.chunked_array([["food", "rail", "zinc", "food"]])
    space = space_of(("food", "rail", "other"), [true], "other")
    truth = read_truth(Label(column="y"), true, space)
    champion = read_answers(
        truth,
        {"label": np.array([b"food", b"rail", b"zinc", b"rail"], dtype=object), "scores": np.eye(3)[[0, 1, 2, 1]]},
        ("food", "rail", "zinc"),
        space,
        who="it",
    )
    assert champion.ids is not None
    assert (champion.ids == truth.ids).tolist() == [True, True, True, False]
    assert champion.per_row["log_loss"][:3] == pytest.approx([0, 0, 0])


def test_a_class_that_no_model_knows_counts_as_wrong() -> None:
    true = pa.chunked_array([["food", "new", "new"]])
    space = space_of(("food", "rail"), [true], "other")
    assert space.classes == ("food", "rail", "new")
    truth = read_truth(Label(column="y"), true, space)
    answers = read_answers(
        truth,
        {"label": np.array(["food", "food", "rail"], dtype=object), "scores": np.eye(2)[[0, 0, 1]]},
        ("food", "rail"),
        space,
        who="it",
    )
    assert metric_values(paired_metrics(truth, answers, answers))["accuracy"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("label", "values"),
    [
        (Label(column="y", kind="flag"), pa.chunked_array([[0, 1, 1]])),
        (Label(column="y", kind="flag"), pa.chunked_array([["0", "1", "true"]])),
        (Label(column="y", kind="flag", positive="fraud"), pa.chunked_array([["fine", "fraud", "fraud"]])),
    ],
)
def test_flags_are_read_from_numbers_words_and_the_positive_value(label: Label, values: pa.ChunkedArray) -> None:
    truth = read_truth(label, values, ClassSpace(classes=()))
    assert truth.flags is not None
    assert truth.flags.tolist() == [False, True, True]


def test_a_label_of_the_wrong_kind_is_named() -> None:
    with pytest.raises(ConfigError, match=r"label\.column 'y' is not of kind 'number'"):
        read_truth(Label(column="y", kind="number"), pa.chunked_array([["a lot"]]), ClassSpace(classes=()))


def test_a_model_that_answers_nan_is_refused_by_name() -> None:
    with pytest.raises(ModelRejected, match="'score' with NaN or infinity for 1 of 2"):
        read_answers(
            Truth(flags=np.array([True, False])), {"score": np.array([0.1, np.nan])}, (), ClassSpace(classes=()), who="the challenger"
        )


def test_each_resample_is_the_metric_of_the_drawn_rows() -> None:
    """Triples stand for rows: their resamples have the mean and the spread of resampled rows."""
    true, _, predicted = class_rows(400)
    space = tuple(f"{i}" for i in range(12))
    answers = Answers(ids=predicted)
    (triples,) = paired_metrics(Truth(classes=space, ids=true), answers, answers)
    rows = Paired(
        counts=np.ones(400, dtype=np.int64), challenger=confusion_family(true, predicted), champion=confusion_family(true, predicted)
    )
    by_triple, by_row = (sample(p, resamples=2000, seed=1)["macro_f1"].challenger_samples for p in (triples, rows))
    assert by_triple.mean() == pytest.approx(by_row.mean(), abs=0.003)
    assert by_triple.std() == pytest.approx(by_row.std(), rel=0.1)


def test_groups_of_rows_have_the_mean_and_the_spread_of_single_rows() -> None:
    source = rng()
    true = source.normal(0, 10, 90_000)
    answers = Answers(values=true + source.normal(0, 2, 90_000), per_row={"brier": source.random(90_000)})
    regression, means = paired_metrics(Truth(values=true), answers, answers)
    assert len(regression.counts) == len(means.counts) == GROUPS
    found = sample(regression, resamples=1000, seed=1) | sample(means, resamples=1000, seed=1)
    error = np.abs(answers.values - true)  # type: ignore[operator]
    assert found["mae"].challenger == pytest.approx(error.mean())
    assert found["r2"].challenger == pytest.approx(sk.r2_score(true, answers.values))
    assert found["mae"].challenger_samples.std() == pytest.approx(error.std() / np.sqrt(90_000), rel=0.1)
    assert found["brier"].challenger_samples.std() == pytest.approx(np.sqrt(1 / 12 / 90_000), rel=0.1)


def project(**evaluation: object) -> Project:
    values = {
        "name": "p", "team": "t", "task": "detection", "source": {"kind": "parquet", "path": "x"}, "features": {"a": "float"},
        "label": {"column": "y", "kind": "flag"}, "evaluation": evaluation,
    }  # fmt: skip
    return parse_project(values, origin="project.yaml")


def test_a_metric_that_the_task_does_not_have_is_refused_with_those_it_has() -> None:
    with pytest.raises(ConfigError, match=r"evaluation.metric is 'accuracy'.*'detection'.*pr_auc"):
        require_metrics(project(metric="accuracy"))
    with pytest.raises(ConfigError, match=r"evaluation.guards.0.metric is 'mae'"):
        require_metrics(project(metric="pr_auc", guards=[{"metric": "mae"}]))
    with pytest.raises(ConfigError, match=r"needs evaluation.capacity"):
        require_metrics(project(metric="recall_at_capacity"))
    require_metrics(project(metric="recall_at_capacity", capacity={"cases": 10}))


def test_every_task_has_metrics() -> None:
    tasks = {task for metric in CATALOGUE.values() for task in metric.tasks}
    assert tasks == {"classification", "multilabel", "detection", "similarity", "regression"}


def test_the_nearest_are_those_that_sorting_all_would_find() -> None:
    from mlpipelines.evaluation.neighbours import _nearest

    for rows in (6, 64, 65, 500):
        unit = rng(rows).normal(size=(rows, 8)).astype(np.float32)
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
        places, cosines = _nearest(unit, 5)
        every = unit @ unit.T
        np.fill_diagonal(every, -np.inf)
        np.testing.assert_allclose(cosines, -np.sort(-every, axis=1)[:, :5], atol=1e-6)
        np.testing.assert_allclose(np.take_along_axis(every, places, axis=1), cosines, atol=1e-6)
