"""What a pair looks like to the model, and that the model learns from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft

from mlpipelines.project_code import FeatureSpec, ModelContext

Code = Callable[[str], ModuleType]
DAY = 86_400
PAIR: dict[str, Any] = {
    "payer": "KELDETON TIMBER LTD",
    "customer": "Keldeton Timber Ltd",
    "reference": "INV-2024-004711",
    "number": "INV-2024-004711",
    "paid": 120.0,
    "open": 120.0,
    "currency": "GBP",
    "invoice_currency": "GBP",
    "booked_at": 19_800 * DAY,
    "issued_at": 19_770 * DAY,
    "due_at": 19_800 * DAY,
    "together": float("nan"),
    "in_parts": float("nan"),
    "rivals": 0,
}


@pytest.fixture
def clues(code: Code, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[dict[str, float]]]:
    """The clues of pairs by name, as they are before they are put on one scale."""
    features = code("features")
    monkeypatch.setattr(tft, "scale_to_z_score", lambda values: values)
    monkeypatch.setattr(features.comparing, "rarity", lambda *_: lambda asked: tf.cast(asked != "", tf.float32))

    def of(*changes: Mapping[str, Any]) -> list[dict[str, float]]:
        pairs = [{**PAIR, **change} for change in changes]
        types = {float: tf.float32, int: tf.int64, str: tf.string}
        inputs = {name: tf.constant([pair[name] for pair in pairs], types[type(PAIR[name])]) for name in PAIR}
        return [dict(zip(features.CLUES, row.tolist(), strict=True)) for row in features.preprocessing_fn(inputs)["clues"].numpy()]

    return of


@pytest.mark.parametrize(
    ("reference", "exact", "errors"),
    [("inv 2024 004711", 1, 0), ("payment 4711", 1, 6), ("2024004711", 1, 0), ("INV-2024-04711", 1, 1), ("INV-2024-004712", 0, 1)],
)
def test_a_number_is_found_however_it_is_written(clues: Any, reference: str, exact: int, errors: int) -> None:
    (found,) = clues({"reference": reference})
    assert max(found["number is a word of the reference"], found["serial is a word of the reference"]) == exact
    assert found["errors in the number"] == min(errors, 5)


def test_an_amount_may_be_less_a_fee_or_less_a_discount_or_a_part(clues: Any) -> None:
    same, fee, discount, part, more = clues({}, {"paid": 100.0}, {"paid": 117.6}, {"paid": 40.0}, {"paid": 300.0})
    assert (same["amount: exactly"], same["amount: less a fee"]) == (1, 0)
    assert (fee["amount: exactly"], fee["amount: less a fee"], fee["amount: less a discount"]) == (0, 1, 0)
    assert discount["amount: less a discount"] == 1
    assert (part["amount: a simple part"], part["amount: more than open"]) == (1, 0)
    assert more["amount: more than open"] == 1


def test_a_name_that_a_bank_cut_off_is_nearer_than_another_one(clues: Any) -> None:
    same, cut, other = clues({}, {"payer": "KELDETON TIMB"}, {"payer": "ORDEN LOGISTICS BV"})
    for name in ("name: runs of letters", "name: words of the customer"):
        assert same[name] == 1.0 > cut[name] > other[name]
    assert same["name: letters apart"] == 0.0 < cut["name: letters apart"] < other["name: letters apart"]


def test_nothing_that_is_missing_makes_a_clue_that_is_no_number(clues: Any) -> None:
    empty = {"payer": "", "customer": "", "reference": "", "number": "", "paid": float("nan"), "open": float("nan"), "currency": ""}
    (found,) = clues(empty)
    assert np.isfinite(list(found.values())).all()


def test_the_model_learns_what_depends_on_two_clues_together(code: Code) -> None:
    keras.utils.set_random_seed(1)
    rng = np.random.default_rng(1)
    width = len(code("features").CLUES)
    values = rng.normal(size=(2_000, width)).astype(np.float32)
    flags = (values[:, 0] * values[:, 1] > 0).astype(np.float32)
    specs = {"clues": FeatureSpec(dtype="float32", shape=(width,))}
    context = ModelContext(features=specs, parameters={"hidden": [32, 16]}, train_rows=2_000, batch_size=64, epochs=12)
    model = code("model").build(context)
    model.fit({"clues": values}, flags, batch_size=64, epochs=12, verbose=0)
    score = model.predict({"clues": values}, verbose=0)
    assert score.shape == (2_000, 1)
    assert ((score[:, 0] > 0.5) == flags).mean() > 0.8  # either clue alone: a half


def test_a_parameter_that_means_nothing_is_named(code: Code) -> None:
    with pytest.raises(ValueError, match=r"training\.parameters\.hiden"):
        code("model").build(ModelContext(features={}, parameters={"hiden": 3}))
