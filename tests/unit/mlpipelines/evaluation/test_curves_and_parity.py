"""Curves are small and end where they must; parity finds the one row that differs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn import metrics as sk

from mlpipelines.evaluation.answers import Answers, Truth
from mlpipelines.evaluation.capacity import places_for, share_of_rows
from mlpipelines.evaluation.curves import REST, curve_data
from mlpipelines.evaluation.metrics_page import metrics_page
from mlpipelines.project import Capacity, Project
from mlpipelines.publishing.parity import compare_answers

REPOSITORY = Path(__file__).parents[4]


def test_a_confusion_matrix_keeps_the_twenty_largest_classes_and_loses_no_row() -> None:
    source = np.random.default_rng(1)
    true = np.minimum(source.geometric(0.1, 5000) - 1, 39)
    predicted = np.where(source.random(5000) < 0.7, true, source.integers(0, 40, 5000))
    truth = Truth(classes=tuple(f"c{i}" for i in range(40)), ids=true)
    matrix = curve_data(truth, Answers(ids=predicted))["confusion_matrix"]
    assert len(matrix["classes"]) == 21
    assert matrix["classes"][-1] == REST
    counts = np.array(matrix["rows"])
    assert counts.sum() == 5000
    largest = np.argsort(-np.bincount(true), kind="stable")[:20]
    assert matrix["classes"][0] == f"c{largest[0]}"
    assert counts[0, 0] == ((true == largest[0]) & (predicted == largest[0])).sum()


def test_curves_of_a_score_have_at_most_200_points_and_the_area_of_the_whole() -> None:
    source = np.random.default_rng(1)
    flags = source.random(20_000) < 0.05
    score = source.normal(flags * 2.0, 1)
    drawn = curve_data(Truth(flags=flags), Answers(score=score, capacity=500.0))
    roc = drawn["roc"]
    assert len(roc["thresholds"]) <= 200
    assert (roc["false_positive_rate"][0], roc["true_positive_rate"][-1], roc["false_positive_rate"][-1]) == (0, 1, 1)
    assert sorted(roc["thresholds"], reverse=True) == roc["thresholds"]
    area = np.trapezoid(roc["true_positive_rate"], roc["false_positive_rate"])
    assert area == pytest.approx(sk.roc_auc_score(flags, score), abs=2e-3)
    assert len(drawn["precision_recall"]["recall"]) <= 200
    assert np.array(drawn["confusion_matrix"]["rows"])[:, 1].sum() == 500


def test_tasks_without_curves_have_none() -> None:
    assert curve_data(Truth(values=np.zeros(3)), Answers(values=np.zeros(3))) == {}
    assert curve_data(Truth(flags=np.ones(3, dtype=bool)), Answers(score=np.zeros(3))) == {}


def reference(scores: list[list[float]], labels: list[str]) -> pa.Table:
    return pa.table({"__key": [f"k{i}" for i in range(len(labels))], "expected/label": labels, "expected/scores": scores})


def test_answers_that_agree_have_no_difference() -> None:
    scores = [[0.9, 0.1], [0.2, 0.8]]
    answers = {"label": np.array([b"a", b"b"], dtype=object), "scores": np.array(scores) + 5e-6}
    assert [agreement.differing for agreement in compare_answers(reference(scores, ["a", "b"]), answers)] == [0, 0]


def test_a_difference_names_the_row_and_both_answers() -> None:
    scores = [[0.9, 0.1], [0.2, 0.8]]
    answers = {"label": np.array([b"a", b"a"], dtype=object), "scores": np.array([[0.9, 0.1], [0.2001, 0.7999]])}
    label, numbers = compare_answers(reference(scores, ["a", "b"]), answers)
    assert (label.differing, numbers.differing) == (1, 1)
    assert label.example == "row k1: expected b, got a"
    assert numbers.worst == pytest.approx(1e-4)


def test_either_name_is_right_where_two_scores_tie() -> None:
    scores = [[0.5, 0.5]]
    answers = {"label": np.array([b"b"], dtype=object), "scores": np.array(scores)}
    assert compare_answers(reference(scores, ["a"]), answers)[0].differing == 0


def test_large_numbers_agree_relative_to_their_size_and_nan_never_does() -> None:
    table = pa.table({"expected/value": [250_000.0, 1.0]})
    assert compare_answers(table, {"value": np.array([250_001.0, 1.0])})[0].differing == 0
    assert compare_answers(table, {"value": np.array([250_010.0, 1.0])})[0].differing == 1
    assert compare_answers(table, {"value": np.array([250_000.0, np.nan])})[0].differing == 1


def test_lists_of_text_agree_word_by_word_and_flags_as_numbers() -> None:
    expected = pa.FixedSizeListArray.from_arrays(pa.array(["amount", "team", "hour", "team"]), 2)
    table = pa.table({"expected/reasons": expected, "expected/flagged": [True, False]})
    told = np.array([[b"amount", b"team"], [b"hour", b"team"]], dtype=object)
    answers = {"reasons": told, "flagged": np.array([True, False])}
    assert [agreement.differing for agreement in compare_answers(table, answers)] == [0, 0]
    told = np.array([[b"amount", b"team"], [b"team", b"hour"]], dtype=object)
    reasons, flags = compare_answers(table, {"reasons": told, "flagged": np.array([True, True])})
    assert (reasons.differing, flags.differing) == (1, 1)
    assert "hour" in reasons.example


def test_an_output_that_is_missing_differs_in_every_row() -> None:
    assert [agreement.differing for agreement in compare_answers(reference([[1.0]], ["a"]), {})] == [1, 1]


def test_capacity_counts_the_days_or_weeks_of_the_test_set() -> None:
    day = 86_400
    seconds = pa.chunked_array([[10 * day + 5, 12 * day + 7, 23 * day]])  # 14 calendar days
    assert places_for(Capacity(cases=50), seconds) == 50
    assert places_for(Capacity(cases=50, per="day"), seconds) == 700
    assert places_for(Capacity(cases=50, per="week"), seconds) == 100
    assert places_for(None, seconds) is None


@pytest.mark.parametrize(
    ("split", "capacity", "share"),
    [
        ("time", {"cases": 2, "per": "day"}, 2 * 10 / 100),  # the training rows are all rows of their ten days
        ("row", {"cases": 2, "per": "day"}, 2 * 10 / 160),  # the days' rows are spread over all splits
        ("row", {"cases": 5, "per": "set"}, 5 / 40),
        ("row", {"cases": 900, "per": "set"}, 1.0),
        ("row", None, None),
    ],
)
def test_the_share_of_rows_that_people_can_look_at(
    split: str, capacity: dict[str, Any] | None, share: float | None, tmp_path: Path
) -> None:
    file = tmp_path / "train.parquet"
    pq.write_table(pa.table({"at": np.arange(100) * 8640}), file)
    project = Project.model_validate(
        {
            "name": "cards",
            "team": "finance",
            "task": "detection",
            "source": {"kind": "parquet", "path": "rows.parquet"},
            "features": {"amount": "float", "at": "timestamp"},
            "time": "at",
            "split": {"by": split},
            "evaluation": {"capacity": capacity},
        }
    )
    for told in (project, project.scoped("train")):  # `train` is told no more of a project than it reads
        assert share_of_rows(told, [file], {"train": 100, "validation": 20, "test": 40}) == pytest.approx(share)


def test_the_reference_page_is_what_the_code_says() -> None:
    assert (REPOSITORY / "docs/reference/metrics.md").read_text() == metrics_page(), "run `make generate`"
