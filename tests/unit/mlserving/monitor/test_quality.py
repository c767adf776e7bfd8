"""Quality from labels: what is counted is what the formula says, and the interval holds what it promises."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mlserving.monitor import intervals
from mlserving.monitor.labelling import LabellingCounter
from mlserving.monitor.quality import CaseCounter, ClassCounter, NumberQualityCounter, Quality
from mlserving.monitor.settings import MonitorSettings
from mlserving.predictions.records import TIME
from watched_model import NOON


def rows(**columns: Any) -> pa.RecordBatch:
    """Predictions with their labels beside them."""
    count = len(next(iter(columns.values())))
    made: dict[str, pa.Array] = {
        "label": pa.array(columns.pop("label", [None] * count), pa.string()),
        "confidence": pa.array(columns.pop("confidence", [None] * count), pa.float32()),
        "truth": pa.array(columns.pop("truth", [None] * count), pa.string()),
        "label_source": pa.array(columns.pop("source", ["api"] * count), pa.string()),
        "time": pa.array(columns.pop("time", [NOON] * count), TIME),
        **{name: value if isinstance(value, pa.Array) else pa.array(value) for name, value in columns.items()},
    }
    return pa.RecordBatch.from_pydict(made)


def classes(*batches: pa.RecordBatch) -> Quality:
    counter = ClassCounter()
    for batch in batches:
        counter.add(batch)
    return counter.quality(0.95)


def test_accuracy_precision_and_recall_are_counted_over_batches() -> None:
    found = classes(
        rows(label=["a", "a", "b", "c"], truth=["a", "b", "b", None]),
        rows(label=["a", "b", None], truth=["a", "a", "a"]),
    )
    assert found.metrics["accuracy"].value == pytest.approx(3 / 5)
    by_name = {each.name: each for each in found.classes}
    assert by_name["a"].precision is not None
    assert by_name["a"].precision.value == pytest.approx(2 / 3)
    assert by_name["b"].recall is not None
    assert by_name["b"].recall.value == pytest.approx(1 / 2)
    assert found.metrics["macro_recall"].value == pytest.approx((2 / 3 + 1 / 2) / 2)


def test_one_class_only_is_all_right_and_not_certain() -> None:
    found = classes(rows(label=["a"] * 30, truth=["a"] * 30))
    assert found.metrics["accuracy"].value == found.metrics["macro_f1"].value == 1
    assert found.metrics["accuracy"].low < 0.9


def test_without_labels_there_is_nothing_to_say() -> None:
    assert classes(rows(label=["a", "b"])) == classes() == Quality()


def test_a_class_that_is_never_answered_has_no_precision() -> None:
    (each,) = [each for each in classes(rows(label=["a"], truth=["b"])).classes if each.name == "b"]
    assert each.precision is None
    assert each.recall is not None


def test_labels_of_doubtful_answers_only_are_weighted_to_all_answers() -> None:
    """All doubtful answers are labelled and half are right; one in a hundred of the sure ones is, and nearly all are right."""
    random = np.random.default_rng(0)
    sure = random.random(20_000) < 0.9
    right = np.where(sure, random.random(20_000) < 0.98, random.random(20_000) < 0.5)
    labelled = ~sure | (random.random(20_000) < 0.05)
    truth = [("a" if ok else "b") if known else None for ok, known in zip(right, labelled, strict=True)]
    confidence = np.where(sure, 0.97, 0.45)
    found = classes(rows(label=["a"] * 20_000, truth=truth, confidence=confidence, source=["review"] * 20_000))
    assert found.metrics["accuracy"].value < 0.75
    weighted = found.metrics["accuracy_weighted"]
    assert weighted.low <= right.mean() <= weighted.high
    assert weighted.value == pytest.approx(right.mean(), abs=0.02)


def test_accuracy_is_told_by_source() -> None:
    found = classes(rows(label=["a"] * 4, truth=["a", "a", "b", "b"], source=["api", "api", "review", "review"]))
    assert {source: estimate.value for source, estimate in found.by_source.items()} == {"api": 1.0, "review": 0.0}


def test_errors_of_quantities_are_means_over_labels_that_are_numbers() -> None:
    counter = NumberQualityCounter("value")
    counter.add(rows(**{"output/value": [1.0, 2.0, float("nan"), 4.0, 9.0]}, truth=["2", "4", "3", "no number", None]))
    found = counter.quality(0.95)
    assert found.metrics["mae"].value == pytest.approx(1.5)
    assert found.metrics["rmse"].value == pytest.approx(np.sqrt(2.5))
    assert found.metrics["mae"].rows == 2


def test_detection_is_judged_by_what_people_look_at_each_day() -> None:
    settings = MonitorSettings(task="detection", capacity={"cases": 2, "per": "day"})  # type: ignore[arg-type]
    counter = CaseCounter(settings)
    days = [NOON, NOON, NOON, NOON + timedelta(days=1), NOON + timedelta(days=1)]
    counter.add(rows(**{"output/score": [0.9, 0.8, 0.7, 0.2, 0.1]}, truth=["1", "0", "1", "True", None], time=days))
    found = counter.quality(0.95).metrics
    assert found["recall_at_capacity"].value == pytest.approx(2 / 3)
    assert found["precision_at_capacity"].value == pytest.approx(2 / 3)
    assert CaseCounter(settings).quality(0.95) == Quality()


@pytest.mark.parametrize("share", [0.02, 0.5, 0.93])
def test_wilson_s_interval_holds_the_truth_about_as_often_as_it_says(share: float) -> None:
    random = np.random.default_rng(1)
    held = 0
    for hits in random.binomial(120, share, 1000):
        estimate = intervals.share(int(hits), 120, 0.95)
        assert estimate is not None
        held += estimate.low <= share <= estimate.high
    assert held >= 925


def test_the_bootstrap_of_the_confusion_table_is_that_of_its_rows() -> None:
    confusion = {("a", "a"): 60, ("a", "b"): 20, ("b", "b"): 30, ("b", "a"): 10}
    found = intervals.macro(confusion, 0.95)["macro_recall"]
    true = np.repeat([0, 0, 1, 1], [60, 20, 30, 10])
    answered = np.repeat([0, 1, 1, 0], [60, 20, 30, 10])
    random, means = np.random.default_rng(3), []
    for _ in range(600):
        chosen = random.integers(0, 120, 120)
        means.append(np.mean([(answered[chosen] == each)[true[chosen] == each].mean() for each in (0, 1)]))
    assert found.value == pytest.approx((60 / 80 + 30 / 40) / 2)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])), abs=0.02)


def test_strata_that_nobody_sampled_are_left_out_and_none_at_all_is_no_estimate() -> None:
    assert intervals.stratified([(100, 0, 0)], 0.95) is None
    found = intervals.stratified([(100, 10, 5), (900, 0, 0), (100, 10, 10)], 0.95)
    assert found is not None
    assert found.value == pytest.approx(0.75)


def test_delays_and_what_still_waits_are_told() -> None:
    counter = LabellingCounter()
    delays = pa.array([3600.0, None, 7200.0, None])
    received = pa.array([NOON + timedelta(hours=1), None, NOON + timedelta(hours=2), None], TIME)
    counter.add(rows(truth=["a", None, "b", None], source=["review", None, "api", None], label_delay_s=delays, received_at=received))
    found = counter.labelling(datetime(2026, 11, 27, 15, tzinfo=UTC))
    assert (found.rows, found.labelled, found.labelled_share, found.reviewed_share) == (4, 2, 0.5, 0.25)
    assert found.delay_median == pytest.approx(5400)
    assert found.newest_label_age == pytest.approx(3600)
    assert found.oldest_unlabelled_age == pytest.approx(3 * 3600)
    assert not found.only_reviewed
