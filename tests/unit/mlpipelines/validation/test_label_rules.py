"""Label rules: what may happen to the classes between two accepted data sets."""

from __future__ import annotations

import numpy as np
import pytest

from mlpipelines.project import LabelRules
from mlpipelines.validation.anomalies import Anomaly
from mlpipelines.validation.label_rules import ClassCounts, label_anomalies

CLASSES = ("food", "fuel", "travel")


def counted(**counts: float) -> ClassCounts:
    return ClassCounts(rows=int(sum(counts.values())), counts=counts)


def judged(current: ClassCounts, last: ClassCounts | None = None, classes: tuple[str, ...] = CLASSES, **rules: object) -> list[Anomaly]:
    return label_anomalies("category", current, last=last, classes=classes, rules=LabelRules.model_validate(rules))


def test_classes_that_stay_as_they_were_are_fine() -> None:
    assert judged(counted(food=500, fuel=300, travel=200), counted(food=510, fuel=290, travel=200)) == []


def test_one_class_only_is_refused() -> None:
    found = judged(counted(food=100), classes=())
    assert [(anomaly.rule, anomaly.rejects) for anomaly in found] == [("one class only", True)]


def test_a_class_of_the_schema_without_rows_is_refused() -> None:
    (found,) = judged(counted(food=500, fuel=300))
    assert (found.rule, found.rejects, found.examples) == ("class vanished", True, ("travel",))


def test_a_rare_class_that_vanished_only_warns() -> None:
    (found,) = judged(counted(food=5000, fuel=3000), counted(food=5000, fuel=3000, travel=3))
    assert (found.rule, found.rejects) == ("class vanished", False)
    assert found.share == pytest.approx(3 / 8003)


def test_the_project_may_let_classes_vanish() -> None:
    (found,) = judged(counted(food=500, fuel=300), vanished="warn")
    assert not found.rejects


def test_a_share_that_moves_is_refused_and_says_from_where_to_where() -> None:
    found = judged(counted(food=9000, fuel=500, travel=500), counted(food=5000, fuel=3000, travel=2000))
    assert {anomaly.rule for anomaly in found} == {"class share"}
    assert "'food' went from 50.0% to 90.0% of rows" in found[0].what


def test_a_list_label_counts_shares_of_rows() -> None:
    both = ClassCounts(rows=100, counts={"red": 100, "blue": 100})
    half = ClassCounts(rows=100, counts={"red": 100, "blue": 20})
    (found,) = label_anomalies("tags", half, last=both, classes=("red", "blue"), rules=LabelRules())
    assert "'blue' went from 100.0% to 20.0%" in found.what


@pytest.mark.parametrize("rows", [(300, 300), (300, 5000), (5000, 600)])
def test_chance_moves_no_share_far_enough(rows: tuple[int, int]) -> None:
    for seed in range(200):
        random = np.random.default_rng(seed)
        drawn = [dict(zip(CLASSES, map(int, random.multinomial(n, [0.5, 0.3, 0.2])), strict=True)) for n in rows]
        assert judged(counted(**drawn[1]), counted(**drawn[0]), max_share_change=0.01) == []
