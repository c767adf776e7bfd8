"""The scam-users model: members that differ and learn, a score that keeps its order and says what it means."""

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

from mlpipelines.project_code import FeatureSpec, ModelContext
from project_modules import module_beside, module_of

PROJECT = Path(__file__).parents[4] / "pipelines" / "projects" / "scam-users"
NUMBERS = 3
SPECS = {
    "places": FeatureSpec(dtype="float32", shape=(NUMBERS,)),
    "sizes": FeatureSpec(dtype="float32", shape=(NUMBERS,)),
    "missing": FeatureSpec(dtype="float32", shape=(NUMBERS,)),
    "text_mail": FeatureSpec(dtype="int64"),
}

model_code = module_of(PROJECT, "model")
layers = module_beside("model_code", "tabular_layers")


def context(**parameters: Any) -> ModelContext:
    small = {"members": 4, "steps": 8, "hidden": 16, "learning_rate": 0.02, **parameters}
    return ModelContext(features=SPECS, parameters=small, train_rows=512, batch_size=64, epochs=8, vocabularies={"mail": 2})


def rows(count: int, seed: int = 0) -> tuple[dict[str, tf.Tensor], Any]:
    """Scammers are those whose first number lies in the middle, which no straight line tells, and a few others."""
    rng = np.random.default_rng(seed)
    places = rng.random((count, NUMBERS)).astype(np.float32)
    inside = (places[:, 0] > 0.4) & (places[:, 0] < 0.6)
    label = (rng.random(count) < np.where(inside, 0.8, 0.05)).astype(np.int64)
    given = {"places": places, "sizes": places * 2 - 1, "missing": np.zeros_like(places), "text_mail": rng.integers(0, 3, count)}
    return {name: tf.constant(values) for name, values in given.items()}, label


def batches(count: int, seed: int = 0) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices(rows(count, seed)).batch(64)


@pytest.fixture(scope="module")
def fitted(model_code: ModuleType) -> keras.Model:
    keras.utils.set_random_seed(1)
    model = model_code.build(context())
    model.fit(batches(512), epochs=8, verbose=0)
    return model


def test_it_learns_what_no_straight_line_tells(fitted: keras.Model) -> None:
    features, label = rows(600, seed=9)
    score = fitted.predict(features, verbose=0)["score"].reshape(-1)
    best = np.argsort(-score)[:100]
    assert label[best].mean() > 0.6
    assert label.mean() < 0.3


def test_the_score_is_the_mean_of_members_that_differ(fitted: keras.Model) -> None:
    answers = fitted.predict(rows(50, seed=3)[0], verbose=0)
    chances = 1 / (1 + np.exp(-answers["members"]))
    np.testing.assert_allclose(answers["score"][:, 0], chances.mean(axis=1), rtol=1e-5)
    assert chances.std(axis=1).max() > 0.001


def test_the_loss_is_the_mean_of_what_each_member_would_lose_alone(model_code: ModuleType) -> None:
    model = model_code.build(context())
    logits, flags = np.array([[0.5, -2.0], [3.0, 1.0]], np.float32), np.array([1, 0])
    each = [keras.losses.BinaryCrossentropy(from_logits=True)(flags[:, None], logits[:, [m]]) for m in range(2)]
    assert float(model.compute_loss(y=flags, y_pred={"members": logits})) == pytest.approx(float(sum(each) / 2), rel=1e-5)
    heavy = model.compute_loss(y=flags, y_pred={"members": logits}, sample_weight=np.array([2.0, 0.0], np.float32))
    assert float(heavy) == pytest.approx(float(np.log1p(np.exp(-logits[0])).mean()), rel=1e-5)


def test_a_calibrated_score_keeps_the_order_and_is_right_on_average(model_code: ModuleType, fitted: keras.Model) -> None:
    splits = {"train": batches(512), "validation": batches(2000, seed=5)}
    finished = model_code.finish(fitted, context(), lambda split="train": splits[split])
    features, label = rows(3000, seed=8)
    before, after = fitted.predict(features, verbose=0)["score"].reshape(-1), finished.predict(features, verbose=0)["score"].reshape(-1)
    assert (np.argsort(before) == np.argsort(after)).mean() > 0.99
    assert after.mean() == pytest.approx(label.mean(), abs=0.03)


def test_calibration_asks_for_the_rows_that_nothing_was_fitted_to_and_leaves_a_score_alone_without_enough_of_them(
    model_code: ModuleType, fitted: keras.Model
) -> None:
    asked: list[str] = []

    def examples(split: str = "train") -> tf.data.Dataset:
        asked.append(split)
        return batches(30)

    finished = model_code.finish(fitted, context(calibration_rows=1000), examples)
    assert asked == ["validation"]
    features = rows(20)[0]
    answers = finished.predict(features, verbose=0)
    np.testing.assert_allclose(answers["score"], fitted.predict(features, verbose=0)["score"])
    assert answers["label"].tolist() == [b"1" if score >= 0.5 else b"0" for score in answers["score"][:, 0]]
    np.testing.assert_allclose(answers["confidence"], np.maximum(answers["score"], 1 - answers["score"])[:, 0])


@settings(max_examples=30)
@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=5))
def test_steps_add_up_to_the_place_and_never_go_back(layers: ModuleType, places: list[float]) -> None:
    steps = np.asarray(layers.Steps(10)(np.array([places], np.float32)))
    np.testing.assert_allclose(steps.sum(axis=-1)[0] / 10, places, atol=1e-5)
    assert (np.diff(steps, axis=-1) <= 0).all()


@given(st.floats(0.001, 0.999))
def test_the_logit_is_the_inverse_of_the_sigmoid(layers: ModuleType, score: float) -> None:
    assert float(keras.ops.sigmoid(layers.logit(keras.ops.convert_to_tensor(score)))) == pytest.approx(score, rel=1e-4)


def test_a_parameter_that_means_nothing_is_refused(model_code: ModuleType) -> None:
    with pytest.raises(ValueError, match=r"training\.parameters\.depth means nothing"):
        model_code.build(context(depth=3))
