"""The isolation forest reads every kind of raw feature, and finds what is alone."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from mlpipelines.evaluation.baselines import answer, columns_needed, describe
from mlpipelines.evaluation.isolation_forest import TEXT_COLUMNS, forest_scores, matrix
from mlpipelines.project import Baseline, ColumnType, Label, Project

FOREST = Baseline(kind="isolation_forest")
HIDDEN = Label(column="odd", kind="flag", use="evaluation")
FEATURES: dict[str, ColumnType] = {
    "amount": "float",
    "count": "integer",
    "at": "timestamp",
    "merchant": "string",
    "tags": "[string]",
    "prices": "[float]",
    "picture": "bytes",
}


def bookings(count: int, *, seed: int = 0) -> pa.Table:
    """Ordinary ones, with something missing wherever a kind allows it."""
    random = np.random.default_rng(seed)
    amount = random.normal(50, 5, count)
    amount[0] = np.nan
    return pa.table(
        {
            "amount": pa.array(amount, pa.float32(), from_pandas=True),
            "count": np.round(random.normal(100, 8, count)).astype(np.int64),
            "at": random.integers(0, 28, count) * 86_400 + (random.normal(14, 2, count) * 3600).astype(np.int64),
            "merchant": pa.array([None, *random.choice(["KELTEX CAFE", "DORMONT FUEL", "ACME CAFE"], count - 1)], pa.string()),
            "tags": pa.array([None, [], *([["a", "b"]] * (count - 2))], pa.list_(pa.string())),
            "prices": pa.array([None, [], *([1.0, price] for price in random.normal(9, 1, count - 2))], pa.list_(pa.float32())),
            "picture": pa.array([b""] * count, pa.binary()),
        }
    )


@pytest.mark.parametrize(
    ("feature", "odd"), [("amount", 900.0), ("count", 900), ("at", 3 * 3600), ("merchant", "zzqx 9#9#9#"), ("prices", [700.0])]
)
def test_a_row_that_is_odd_in_one_feature_scores_above_nearly_all_others(feature: str, odd: object) -> None:
    train, test = bookings(1_000), bookings(200, seed=1)
    column = test[feature].to_pylist()
    column[7] = odd
    test = test.set_column(test.column_names.index(feature), feature, pa.array(column, test.schema.field(feature).type))
    scores = forest_scores(train, test, {feature: FEATURES[feature]})
    assert (scores > scores[7]).mean() < 0.03


def test_the_same_rows_get_the_same_scores_and_none_is_missing() -> None:
    train, test = bookings(300), bookings(40, seed=1)
    known = {name: kind for name, kind in FEATURES.items() if kind != "bytes"}
    scores = forest_scores(train, test, known)
    assert scores.shape == (40,)
    assert np.isfinite(scores).all()
    np.testing.assert_array_equal(scores, forest_scores(train, test, known))


def test_the_columns_depend_on_the_features_and_not_on_the_rows() -> None:
    assert matrix(bookings(5), {"merchant": "string", "at": "timestamp"}).shape == (5, TEXT_COLUMNS + 2)
    assert matrix(bookings(2), {"tags": "[string]", "prices": "[float]", "amount": "float"}).shape == (2, 1 + TEXT_COLUMNS + 2 + 1)


def test_as_a_baseline_it_needs_no_label_and_reads_what_the_training_rows_have() -> None:
    assert columns_needed(FOREST, HIDDEN, FEATURES) == ["amount", "count", "at", "merchant", "tags", "prices"]
    assert describe(FOREST, HIDDEN) == "isolation forest"
    test = bookings(50, seed=2)
    found = answer(FOREST, HIDDEN, bookings(200).select(["amount", "at"]), test, task="detection", features=FEATURES)
    assert len(set(found.outputs["score"])) > 10
    nothing = answer(FOREST, HIDDEN, pa.table({}), test, task="detection", features=FEATURES)
    assert nothing.outputs["score"].tolist() == [0.0] * 50


def test_only_a_project_that_scores_rows_may_be_held_against_it() -> None:
    with pytest.raises(ValidationError, match="isolation_forest"):
        Project.model_validate(
            {
                "name": "cards",
                "team": "finance",
                "task": "classification",
                "source": {"kind": "parquet", "path": "rows.parquet"},
                "features": {"amount": "float"},
                "label": {"column": "kind"},
                "evaluation": {"baseline": {"kind": "isolation_forest"}},
            }
        )
