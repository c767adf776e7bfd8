"""The outlier model builds itself from any features, is not led astray by the odd rows it learns from, and says what is odd and how far."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mlpipelines.project_code import FeatureSpec, ModelContext
from project_modules import module_beside, module_of

PROJECT = Path(__file__).parents[4] / "pipelines" / "projects" / "transaction-outliers"
KINDS = {"load": "float32", "heat": "float32", "machine": "int64", "maker": "string"}
Rows = dict[str, Any]

model_code = module_of(PROJECT, "model")
features_code = module_of(PROJECT, "features")
layers = module_beside("model_code", "outlier_layers")


def context(rows: Rows, *, share: float | None = None, **parameters: object) -> ModelContext:
    return ModelContext(
        features={name: FeatureSpec(dtype=KINDS[name]) for name in rows},
        parameters={"hidden": 16, "code": 4, "learning_rate": 0.02, **parameters},
        train_rows=len(next(iter(rows.values()))),
        batch_size=64,
        epochs=8,
        vocabularies={"machine": 2},
        capacity_share=share,
    )


def readings(count: int, seed: int = 0) -> Rows:
    """Heat follows from machine and load; makers' names from two words."""
    random = np.random.default_rng(seed)
    machine, load = random.integers(0, 2, count), random.normal(0, 1, count)
    heat = 2.0 * machine - 1 + 0.5 * load + random.normal(0, 0.1, count)
    return {
        "load": tf.constant(load, tf.float32),
        "heat": tf.constant(heat, tf.float32),
        "machine": tf.constant(machine),
        "maker": tf.constant(random.choice(["delta works", "nordic press"], count)),
    }


def trained(model_code: ModuleType, rows: Rows, **settings: Any) -> keras.Model:
    keras.utils.set_random_seed(5)
    batches = tf.data.Dataset.from_tensor_slices((rows,)).batch(64)
    model = model_code.build(context(rows, **settings))
    model.fit(batches, epochs=8, verbose=0)
    return model_code.finish(model, context(rows, **settings), lambda: batches)


def changed(rows: Rows, **values: Any) -> Rows:
    """The first row of `rows`, with other values."""
    return {name: tf.constant([values[name]], value.dtype) if name in values else value[:1] for name, value in rows.items()}


@pytest.fixture(scope="module")
def detector(model_code: ModuleType) -> keras.Model:
    return trained(model_code, readings(1200), share=0.02, reasons=2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("values", "reasons"),
    [
        ({"load": 0.0, "machine": 0, "heat": 1.5}, ("heat", "load", "machine")),  # each ordinary by itself, and they belong to no reading
        ({"heat": 25.0}, ("heat",)),
        ({"maker": "zq0x 7kkw0"}, ("maker",)),
    ],
)
def test_an_odd_row_is_flagged_and_the_reason_is_the_odd_feature(detector: keras.Model, values: Rows, reasons: tuple[str, ...]) -> None:
    found = detector(changed(readings(50, seed=1), **values))
    assert found["reasons"].numpy()[0, 0].decode() in reasons
    assert abs(found["distances"].numpy()[0, 0]) > 3
    assert bool(found["flagged"][0])


@pytest.mark.slow
def test_as_many_rows_are_flagged_as_people_can_look_at(detector: keras.Model) -> None:
    assert float(tf.reduce_mean(tf.cast(detector(readings(1200))["flagged"], tf.float32))) == pytest.approx(0.02, abs=0.001)
    assert float(tf.reduce_mean(tf.cast(detector(readings(1500, seed=1))["flagged"], tf.float32))) == pytest.approx(0.02, abs=0.015)


@pytest.mark.slow
def test_reasons_come_farthest_first_and_make_the_score(detector: keras.Model) -> None:
    found = {name: value.numpy() for name, value in detector(readings(200, seed=2)).items()}
    sizes = np.abs(found["distances"])
    assert (sizes[:, 0] >= sizes[:, 1]).all()
    assert (found["score"][:, 0] <= sizes[:, 0] + 1e-5).all(), "a mean is not above the largest"
    assert (found["score"][:, 0] >= sizes[:, 0] / len(KINDS) ** 0.25 - 1e-5).all()


@pytest.mark.slow
def test_the_odd_rows_it_learns_from_are_still_odd(model_code: ModuleType) -> None:
    heat = readings(1200)["heat"].numpy()
    heat[::120] = 20.0
    rows = {"machine": readings(1200)["machine"], "heat": tf.constant(heat)}
    flagged = trained(model_code, rows, share=0.01)(rows)["flagged"].numpy()
    assert flagged[::120].all()


def test_it_builds_itself_from_numbers_alone_and_says_no_more_reasons_than_there_are(model_code: ModuleType) -> None:
    rows = {name: readings(200)[name] for name in ("load", "heat")}
    model = model_code.build(context(rows))
    batches = tf.data.Dataset.from_tensors((rows,))
    found = model_code.finish(model, context(rows), lambda: batches)(rows)
    assert found["reasons"].shape == found["distances"].shape == (200, 2)


def test_a_parameter_that_means_nothing_and_a_feature_it_cannot_read_are_refused_by_name(model_code: ModuleType) -> None:
    rows = readings(10)
    with pytest.raises(ValueError, match="hiden"):
        model_code.build(context(rows, hiden=3))
    pairs = ModelContext(features={"pair": FeatureSpec(dtype="float32", shape=(2,))})
    with pytest.raises(ValueError, match="pair"):
        model_code.build(pairs)


def test_each_feature_is_hidden_once_and_the_others_are_as_they_were(layers: ModuleType) -> None:
    side_by_side = tf.constant([[1.0, 2.0, 3.0, 4.0]])
    turns = layers.HiddenInTurn([1, 2, 1])(side_by_side).numpy()[0]
    np.testing.assert_array_equal(turns[:, :4], [[0, 2, 3, 4], [1, 0, 0, 4], [1, 2, 3, 0]])
    np.testing.assert_array_equal(turns[:, 4:], np.eye(3))


@settings(max_examples=20, deadline=None)
@given(chances=st.lists(st.floats(0.01, 0.99), min_size=2, max_size=6))
def test_a_category_lies_as_far_as_a_number_that_is_as_much_less_likely(layers: ModuleType, chances: list[float]) -> None:
    layer = layers.CategoryDistance()
    shares = np.array(chances) / sum(chances)
    logits = tf.constant(np.log([shares]), tf.float32)
    distances = [float(layer([tf.constant([place]), logits])[1][0, 0]) for place in range(len(shares))]
    np.testing.assert_allclose(np.exp(-0.5 * np.square(distances)), shares / shares.max(), atol=1e-3)


def test_a_number_is_never_rebuilt_more_surely_than_narrowest_nor_out_of_range(layers: ModuleType) -> None:
    sure = tf.constant([[9.0, -30.0]])
    assert float(layers.NumberDistance(0.5)([tf.constant([4.0]), sure])[1][0, 0]) == pytest.approx(2.0, abs=1e-3)
    assert float(layers.NumberDistance(0.5)([tf.constant([2.0]), sure])[1][0, 0]) == pytest.approx(-2.0, abs=1e-3)


def test_the_rows_that_lose_most_teach_nothing(layers: ModuleType) -> None:
    layer = layers.TrimmedMean(0.25)
    layer([tf.constant([[1.0], [2.0], [3.0], [900.0]]), tf.zeros([4, 1])])
    assert float(layer.losses[0]) == pytest.approx(2.0)


def test_a_text_is_letters_after_a_space_and_an_empty_one_is_no_distance(layers: ModuleType) -> None:
    letters = layers.Letters()(tf.constant(["ab", "", "x" * 100])).numpy()
    assert letters.shape == (3, layers.LETTERS)
    assert letters[0, :4].tolist() == [32, 97, 98, 0]
    distance = layers.LetterDistance()([tf.constant(letters), tf.zeros([3, layers.LETTERS, layers.SYMBOLS])])[1].numpy()
    assert distance[1, 0] == 0
    assert distance[0, 0] == pytest.approx(np.log(layers.SYMBOLS), abs=1e-3)
    pieces = layers.PiecesOfText(4)(tf.constant(letters)).numpy()
    assert not np.allclose(pieces[0], pieces[2])


@settings(max_examples=30, deadline=None)
@given(distances=arrays.arrays(np.float64, st.tuples(st.integers(1, 200), st.integers(1, 3)), elements=st.floats(-1e3, 1e3)))
def test_usual_distances_are_at_least_one_and_at_most_the_largest(model_code: ModuleType, distances: np.ndarray[Any, Any]) -> None:
    usual = model_code.usual_distances(distances)
    assert usual.shape == distances.shape[1:]
    assert (usual >= 1).all()
    assert (usual <= np.maximum(1, np.abs(distances).max(axis=0)) + 1e-6).all()


@pytest.mark.parametrize(("shown", "cleaned"), [("KELTEX *Cafe 0173", "keltex cafe 0000"), ("", ""), ("***", "")])
def test_names_lose_case_punctuation_and_which_digits_they_have(features_code: ModuleType, shown: str, cleaned: str) -> None:
    assert features_code.cleaned(tf.constant([shown])).numpy()[0].decode() == cleaned
