"""What features make of a score adds up, is fair, and is told the largest first."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from mlpipelines.errors import ConfigError
from mlpipelines.project import Project
from mlpipelines.training import explanations
from mlpipelines.training.explanations import Tensors, integrated_gradients, orders_of, ranked, row_to_compare_with, shapley

SMALLEST: dict[str, Any] = {
    "name": "cards",
    "team": "finance",
    "task": "detection",
    "source": {"kind": "parquet", "path": "rows.parquet"},
    "features": {"amount": "float", "team": "string"},
}


def network(seed: int, width: int) -> Callable[[Tensors], tf.Tensor]:
    """A smooth score of features `0`, `1`, …, in which they work together."""
    random = np.random.default_rng(seed)
    inner, outer = (tf.constant(random.normal(size=size), tf.float32) for size in ((width, 8), (8, 1)))
    return lambda rows: tf.reshape(tf.tanh(tf.stack([rows[str(i)] for i in range(width)], axis=1) @ inner) @ outer, [-1])


def rows_of(values: np.ndarray[Any, Any]) -> Tensors:
    return {str(i): tf.constant(column, tf.float32) for i, column in enumerate(values.T)}


def exact(score: Callable[[Tensors], tf.Tensor], asked: np.ndarray[Any, Any], compared: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Shapley values of one row by their definition, over all subsets."""
    count = len(asked)
    worth = {
        chosen: float(score(rows_of(np.where([i in chosen for i in range(count)], asked, compared)[None]))[0])
        for size in range(count + 1)
        for chosen in itertools.combinations(range(count), size)
    }
    values = np.zeros(count)
    for feature in range(count):
        for chosen in [subset for subset in worth if feature not in subset]:
            weight = math.factorial(len(chosen)) * math.factorial(count - len(chosen) - 1) / math.factorial(count)
            values[feature] += weight * (worth[tuple(sorted((*chosen, feature)))] - worth[chosen])
    return values


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 7), st.integers(2, 40))
def test_shapley_parts_add_up_to_the_difference_however_few_orders_there_are(seed: int, width: int, samples: int) -> None:
    random = np.random.default_rng(seed)
    asked, compared = random.normal(size=(5, width)), random.normal(size=(1, width))
    score = network(seed, width)
    made = shapley(score, rows_of(asked), rows_of(compared), orders_of(width, samples)).numpy()
    difference = (score(rows_of(asked)) - score(rows_of(compared))).numpy()
    np.testing.assert_allclose(made.sum(axis=1), difference, atol=1e-4)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 4))
def test_with_all_orders_shapley_parts_are_those_of_the_definition(seed: int, width: int) -> None:
    random = np.random.default_rng(seed)
    asked, compared = random.normal(size=width), random.normal(size=width)
    score = network(seed, width)
    made = shapley(score, rows_of(asked[None]), rows_of(compared[None]), orders_of(width, 24)).numpy()[0]
    np.testing.assert_allclose(made, exact(score, asked, compared), atol=1e-4)


def test_more_orders_come_closer_to_the_definition() -> None:
    random = np.random.default_rng(2)
    asked, compared = 2 * random.normal(size=6), random.normal(size=6)
    score, truth = network(2, 6), exact(network(2, 6), asked, compared)

    def error(samples: int) -> float:
        made = shapley(score, rows_of(asked[None]), rows_of(compared[None]), orders_of(6, samples)).numpy()[0]
        return float(np.abs(made - truth).mean())

    assert error(2) > 3 * error(400)


def test_text_and_lists_are_put_in_as_they_are_and_what_the_score_does_not_read_makes_nothing() -> None:
    asked = {"team": tf.constant(["sales", "plant"]), "tags": tf.constant([["a", "b"], ["a", ""]]), "unread": tf.constant([7, 8], tf.int64)}
    compared = {"team": tf.constant(["plant"]), "tags": tf.constant([[""]]), "unread": tf.constant([0], tf.int64)}

    def score(rows: Tensors) -> tf.Tensor:
        sales = tf.cast(rows["team"] == "sales", tf.float32)
        return 3 * sales + tf.reduce_sum(tf.cast(rows["tags"] != "", tf.float32), axis=1)

    made = shapley(score, asked, compared, orders_of(3, 6)).numpy()
    np.testing.assert_allclose(made, [[3, 2, 0], [0, 1, 0]], atol=1e-6)


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 6))
def test_integrated_gradients_add_up_to_the_difference(seed: int, width: int) -> None:
    random = np.random.default_rng(seed)
    asked, compared = random.normal(size=(5, width)), random.normal(size=(1, width))
    score = network(seed, width)
    made = integrated_gradients(score, rows_of(asked), rows_of(compared), 128).numpy()
    difference = (score(rows_of(asked)) - score(rows_of(compared))).numpy()
    np.testing.assert_allclose(made.sum(axis=1), difference, atol=1e-3)


def test_integrated_gradients_of_a_sum_are_its_terms_and_a_feature_of_several_numbers_is_one() -> None:
    asked, compared = (
        {"a": tf.constant([2.0, 5.0]), "b": tf.constant([[1.0, 2.0], [3.0, 4.0]])},
        {"a": tf.constant([1.0]), "b": tf.zeros([1, 2])},
    )
    made = integrated_gradients(lambda rows: rows["a"] ** 2 + tf.reduce_sum(rows["b"], axis=1), asked, compared, 2).numpy()
    np.testing.assert_allclose(made, [[3, 3], [24, 7]], rtol=1e-5)


def test_a_score_without_a_gradient_is_refused_and_so_is_a_feature_that_is_no_float() -> None:
    asked, compared = {"a": tf.constant([2.0])}, {"a": tf.constant([1.0])}
    with pytest.raises(ConfigError, match="shapley"):
        integrated_gradients(lambda rows: tf.cast(tf.cast(rows["a"], tf.int64), tf.float32), asked, compared, 4)
    with pytest.raises(ConfigError, match="codes"):
        explanations.require_floats({"a": tf.constant([2.0]), "codes": tf.constant([2])})


@given(st.integers(1, 9), st.integers(2, 60))
def test_each_order_has_every_feature_and_comes_with_its_reverse(features: int, samples: int) -> None:
    orders = orders_of(features, samples)
    assert (np.sort(orders, axis=1) == np.arange(features)).all()
    assert {tuple(order) for order in orders} == {tuple(order[::-1]) for order in orders}
    assert len(orders) <= samples + 1


def test_the_largest_part_is_told_first_whatever_its_sign() -> None:
    told = ranked(["a", "b", "c"], tf.constant([[0.1, -0.9, 0.5], [0.0, 0.0, 0.2]]))
    assert told[explanations.EXPLAINED_BY].numpy().tolist() == [[b"b", b"c", b"a"], [b"c", b"a", b"b"]]
    np.testing.assert_allclose(told[explanations.ATTRIBUTIONS], [[-0.9, 0.5, 0.1], [0.2, 0.0, 0.0]])


def test_the_row_to_compare_with_holds_what_is_typical_and_nothing_that_few_rows_have(tmp_path: Path) -> None:
    rows = {
        "amount": pa.array([1.0, 2.0, 90.0, *[3.0] * 12, None], pa.float32()),
        "at": pa.array(range(16), pa.int64()),
        "team": ["sales"] * 12 + ["plant"] * 4,
        "payer": [f"person {i}" for i in range(16)],
        "tags": pa.array([["a"]] * 16),
        "level": pa.array([5.0] * 16, pa.float32()),
    }
    kinds = {"amount": "float", "at": "timestamp", "team": "string", "payer": "string", "tags": "[string]", "level": "float"}
    file = tmp_path / "rows.parquet"
    pq.write_table(pa.table(rows), file)
    project = Project.model_validate({**SMALLEST, "features": kinds, "deployment": {"explanations": {"compare_with": {"level": 1.5}}}})
    row = row_to_compare_with(project, [file])
    assert row == {"amount": 3.0, "at": 7, "team": "sales", "payer": b"", "tags": b"", "level": 1.5}
    assert explanations.as_tensor("[string]", row["tags"]).shape == (1, 1)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"deployment": {"explanations": {"compare_with": {"amont": 1.0}}}}, "amont"),
        ({"deployment": {"explanations": {"compare_with": {"amount": "much"}}}}, "much"),
        ({"features": {"amount": "float", "count": "integer"}, "deployment": {"explanations": {"compare_with": {"count": None}}}}, "count"),
        ({"task": "similarity", "label": {"column": "kind"}, "deployment": {"explanations": {}}}, "explanations"),
    ],
)
def test_what_cannot_be_explained_is_refused_by_name(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        Project.model_validate({**SMALLEST, **changes})
