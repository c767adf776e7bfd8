"""The label column is checked before anything is learned from it."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from mlpipelines.errors import ConfigError, DataRejected
from mlpipelines.ingestion.labels import (
    canonical_flags,
    class_counts,
    classes_kept,
    folded,
    missing_labels,
    require_classes,
    require_labels,
)
from mlpipelines.project import Label

CLASS = Label(column="category", min_rows=3)
FLAG = Label(column="fraud", kind="flag")


def test_null_and_empty_text_are_missing() -> None:
    assert missing_labels(pa.array(["a", "", None])).tolist() == [False, True, True]
    assert missing_labels(pa.array([["a"], [], None])).tolist() == [False, False, True]


def test_a_few_missing_labels_pass_and_many_do_not() -> None:
    require_labels(np.array([True] * 5 + [False] * 95), CLASS)
    with pytest.raises(DataRejected, match=r"'category' is missing in 6 of 100 rows \(6\.0%\)"):
        require_labels(np.array([True] * 6 + [False] * 94), CLASS)


def test_a_label_that_only_judges_may_be_missing_but_not_everywhere() -> None:
    judging = Label(column="outlier", kind="flag", use="evaluation")
    require_labels(np.array([True] * 99 + [False]), judging)
    with pytest.raises(DataRejected, match="missing in 100 of 100"):
        require_labels(np.array([True] * 100), judging)


def test_flags_in_any_spelling_become_0_and_1() -> None:
    assert canonical_flags(pa.array(["true", "0", "FALSE", "1.0", "Yes"]), FLAG).to_pylist() == ["1", "0", "0", "1", "1"]
    assert canonical_flags(pa.array([0, 1, None]), FLAG).to_pylist() == [0, 1, None]


@pytest.mark.parametrize("values", [["fraud", "ok"], [0, 2]])
def test_a_flag_of_other_values_needs_to_know_which_counts(values: list[object]) -> None:
    with pytest.raises(DataRejected, match=r"neither 0 nor 1.*label\.positive"):
        canonical_flags(pa.array(values), FLAG)


def test_with_positive_the_values_stay_as_they_are() -> None:
    values = pa.array(["fraud", "ok"])
    positive = FLAG.model_copy(update={"positive": "fraud"})
    assert canonical_flags(values, positive) is values
    require_classes({"ok": 9, "fraud": 1}, positive)
    with pytest.raises(DataRejected, match=r"has to be 'fraud' \(label\.positive\).*it is: 'ok'"):
        require_classes({"ok": 10}, positive)


def test_one_class_is_nothing_to_learn() -> None:
    with pytest.raises(DataRejected, match="All training rows have the label 'a' in 'category'"):
        require_classes({"a": 10}, CLASS)
    require_classes({"a": 10}, Label(column="c", use="evaluation"))


def test_rare_classes_are_folded_into_other() -> None:
    counts = class_counts(pa.array(["a"] * 3 + ["b"] * 2 + ["c"] * 5), CLASS)
    assert list(counts.items()) == [("c", 5), ("a", 3), ("b", 2)]
    kept = classes_kept(counts, CLASS)
    assert kept == ["a", "c"]
    assert folded(pa.array(["a", "b", "never seen", None]), kept, CLASS).to_pylist() == ["a", "other", "other", None]


def test_nothing_is_folded_unless_asked_for() -> None:
    assert classes_kept({"a": 1}, Label(column="c")) is None


def test_only_text_can_be_folded() -> None:
    with pytest.raises(ConfigError, match=r"label\.min_rows"):
        folded(pa.array([1, 2]), [], CLASS)


def test_lists_are_counted_item_by_item_and_numbers_not_at_all() -> None:
    assert class_counts(pa.array([["a", "b"], ["a"], []]), Label(column="c", kind="classes")) == {"a": 2, "b": 1}
    assert class_counts(pa.array([1.5]), Label(column="c", kind="number")) == {}
