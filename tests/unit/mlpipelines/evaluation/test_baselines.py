"""Baselines count training rows, and answer as a model would."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from mlpipelines.evaluation.baselines import answer, columns_needed, describe
from mlpipelines.project import Baseline, Label

TRAIN = pa.table(
    {
        "merchant": ["a", "a", "a", "b", "b", None, "gone"],
        "y": ["food", "food", "rail", "rail", "fuel", "food", "rail"],
        "flag": [1, 1, 0, 0, 0, 1, None],
        "tags": [["x", "y"], ["x"], [], ["y"], ["x"], ["x"], None],
        "price": pa.array([1.0, 3.0, 2.0, 10.0, 20.0, 6.0, 7.0], pa.float32()),
    }
)
TEST = pa.table({"merchant": ["a", "b", "new", None]})
BY_MERCHANT = Baseline(kind="most_frequent_by", column="merchant")


def test_the_most_frequent_class_of_each_merchant_and_the_majority_for_a_new_one() -> None:
    found = answer(BY_MERCHANT, Label(column="y"), TRAIN, TEST, task="classification", features={})
    assert found.outputs["label"].tolist()[0] == "food"
    assert found.outputs["label"].tolist()[1] == "rail"  # a tie between rail and fuel goes to what is more frequent overall
    assert found.outputs["label"].tolist()[2] in ("food", "rail")
    assert found.outputs["label"].tolist()[3] == "food"  # missing is a value like any other
    assert found.outputs["scores"].sum(axis=1) == pytest.approx(np.ones(4))
    assert (found.outputs["scores"] > 0).all()
    assert describe(BY_MERCHANT, Label(column="y")) == "most frequent class for each merchant"
    assert columns_needed(BY_MERCHANT, Label(column="y"), {}) == ["y", "merchant"]


def test_the_majority_is_one_class_for_all() -> None:
    train = TRAIN.slice(0, 3)
    found = answer(Baseline(), Label(column="y"), train, TEST, task="classification", features={})
    assert set(found.outputs["label"]) == {"food"}
    assert found.outputs["confidence"] == pytest.approx([2 / 3] * 4)


def test_a_flag_gets_the_training_share_as_its_score() -> None:
    prior = answer(Baseline(kind="prior"), Label(column="flag", kind="flag"), TRAIN, TEST, task="detection", features={})
    assert prior.outputs["score"] == pytest.approx([0.5] * 4)
    by = answer(BY_MERCHANT, Label(column="flag", kind="flag"), TRAIN, TEST, task="detection", features={})
    assert by.outputs["score"] == pytest.approx([2.5 / 4, 0.5 / 3, 0.5, 1.5 / 2])


def test_without_a_training_label_every_row_scores_the_same() -> None:
    found = answer(
        Baseline(kind="prior"), Label(column="absent", kind="flag", use="evaluation"), TRAIN, TEST, task="detection", features={}
    )
    assert found.outputs["score"].tolist() == [0.0] * 4


def test_numbers_get_the_mean_and_lists_the_share_of_each_class() -> None:
    mean = answer(Baseline(kind="mean"), Label(column="price", kind="number"), TRAIN, TEST, task="regression", features={})
    assert mean.outputs["value"] == pytest.approx([7.0] * 4)
    shares = answer(Baseline(kind="prior"), Label(column="tags", kind="classes"), TRAIN, TEST, task="multilabel", features={})
    assert shares.classes == ("x", "y")
    assert shares.outputs["scores"][0] == pytest.approx([4 / 6, 2 / 6])


def test_similarity_is_held_against_counted_labels_and_has_no_embedding_but_chance() -> None:
    found = answer(BY_MERCHANT, Label(column="y"), TRAIN, TEST, task="similarity", features={}).outputs
    assert set(found) == {"label"}
    assert (
        found["label"].tolist()
        == answer(BY_MERCHANT, Label(column="y"), TRAIN, TEST, task="classification", features={}).outputs["label"].tolist()
    )
