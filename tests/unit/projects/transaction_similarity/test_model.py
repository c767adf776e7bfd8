"""The similarity model: losses teach what they say, every row has partners in its batch, and labels count as soon as they are in the index."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import keras
import numpy as np
import pytest
import tensorflow as tf

from mlpipelines.artifacts import KEY
from mlpipelines.project_code import FeatureSpec, ModelContext
from project_modules import module_of

PROJECT = Path(__file__).parents[4] / "pipelines" / "projects" / "transaction-similarity"
SPECS = {
    **{name: FeatureSpec(dtype="string") for name in ("merchant", "brand")},
    **{name: FeatureSpec(dtype="int64") for name in ("vat", "team", "cost_centre", "pence", "weekday", "age_days")},
    "numbers": FeatureSpec(dtype="float32", shape=(6,)),
}
LOSSES = ("contrastive", "triplet", "multi-similarity")

model_code = module_of(PROJECT, "model")


def neighbour(model_code: ModuleType, name: str) -> ModuleType:
    del model_code  # puts the folder on the path
    return sys.modules[name]


def context(classes: tuple[str, ...] = ("cafe", "fuel"), **parameters: object) -> ModelContext:
    small = {"table_bits": 9, "hidden": 16, "text_width": 8, "cross_width": 4, "embedding_size": 8, "learning_rate": 0.01, **parameters}
    return ModelContext(features=SPECS, classes=classes, parameters=small, train_rows=320, batch_size=32, epochs=4)


def rows(count: int, seed: int = 0, words: tuple[str, ...] = ("cafe", "petrol")) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
    """Kinds of merchant, each with its word, and everything else at random."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, len(words), count)
    names = [f"{words[kind]} number {rng.integers(50)}" for kind in label]
    numbers = {name: tf.constant(rng.integers(0, 5, count)) for name in ("vat", "team", "cost_centre", "weekday", "age_days")}
    text = {"merchant": tf.constant(names), "brand": tf.constant([name.rsplit(" ", 1)[0] for name in names])}
    money = {"pence": tf.constant(rng.integers(-500, 9_000, count)), "numbers": tf.constant(rng.normal(size=(count, 6)).astype("float32"))}
    return {**text, **numbers, **money}, tf.constant(label)


def on_a_circle(*degrees: float) -> tf.Tensor:
    angles = np.radians(degrees)
    return tf.constant(np.stack([np.cos(angles), np.sin(angles)], axis=1), tf.float32)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("mining", ["hard", "semi-hard"])
def test_pairs_that_lie_as_they_should_cost_less_than_pairs_that_do_not(model_code: ModuleType, loss: str, mining: str) -> None:
    measured = model_code.loss_of({"loss": loss, "mining": mining, "margin": None})
    ids = tf.constant([0, 0, 1, 1])
    apart, mixed = on_a_circle(0, 2, 170, 172), on_a_circle(0, 170, 2, 172)
    assert float(measured(ids, apart)) < 0.05 < float(measured(ids, mixed))


@pytest.mark.parametrize("loss", LOSSES)
def test_moving_down_the_slope_brings_partners_together(model_code: ModuleType, loss: str) -> None:
    measured = model_code.loss_of({"loss": loss, "mining": "semi-hard", "margin": None})
    points = tf.Variable(on_a_circle(0, 80, 40, 120))
    ids = tf.constant([[0], [0], [1], [1]])
    before = float(measured(ids, tf.math.l2_normalize(points, axis=1)))
    for _ in range(30):
        with tf.GradientTape() as tape:
            value = measured(ids, tf.math.l2_normalize(points, axis=1))
        points.assign_sub(0.1 * tape.gradient(value, points))
    assert float(measured(ids, tf.math.l2_normalize(points, axis=1))) < before


@pytest.mark.parametrize("loss", LOSSES)
def test_identical_rows_and_rows_without_partner_give_finite_slopes(model_code: ModuleType, loss: str) -> None:
    measured = model_code.loss_of({"loss": loss, "mining": "hard", "margin": None})
    points = tf.Variable(on_a_circle(0, 0, 0, 90))
    with tf.GradientTape() as tape:
        value = measured(tf.constant([0, 0, 1, 2]), points)
    assert np.isfinite(tape.gradient(value, points).numpy()).all()


def test_a_semi_hard_stranger_is_the_nearest_that_is_farther_than_the_partner(model_code: ModuleType) -> None:
    losses = neighbour(model_code, "pair_losses")
    generator = np.random.default_rng(1)
    distance = np.sort(generator.random((12, 12)), axis=1).astype("float32")
    different = generator.random((12, 12)) < 0.6
    different[:, 0] = True
    found = losses._next_farther(tf.constant(distance), tf.constant(different)).numpy()
    for row in range(12):
        strangers = distance[row][different[row]]
        for pair in range(12):
            farther = strangers[strangers > distance[row, pair]]
            assert found[row, pair] == (farther.min() if len(farther) else strangers.max())


def test_multi_similarity_is_the_formula_of_the_paper(model_code: ModuleType) -> None:
    losses = neighbour(model_code, "pair_losses")
    points, ids = on_a_circle(0, 30, 50, 75, 200), [0, 0, 1, 1, 0]
    cosines = (points.numpy() @ points.numpy().T).astype(float)
    expected = []
    for a in range(5):
        alike = [cosines[a, b] for b in range(5) if b != a and ids[b] == ids[a]]
        strange = [cosines[a, b] for b in range(5) if ids[b] != ids[a]]
        kept = [s for s in alike if s - 0.1 < max(strange)], [s for s in strange if s + 0.1 > min(alike)]
        pulled = np.log1p(sum(np.exp(-2 * (s - 0.5)) for s in kept[0])) / 2
        expected.append(pulled + np.log1p(sum(np.exp(40 * (s - 0.5)) for s in kept[1])) / 40)
    np.testing.assert_allclose(losses.MultiSimilarity().call(tf.constant(ids), points), expected, rtol=1e-4)


@pytest.mark.parametrize(("setting", "value"), [("loss", "softmax"), ("mining", "easy"), ("neigbours", 3)])
def test_what_is_misspelt_in_the_parameters_is_refused_by_name(model_code: ModuleType, setting: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"training.parameters.{setting}"):
        model_code.build(replace(context(), parameters={"loss": "triplet", setting: value}))


def test_composed_batches_hold_the_same_rows_in_groups_of_a_class(model_code: ModuleType) -> None:
    generator = np.random.default_rng(4)
    labels = generator.choice(40, 960, p=np.arange(40, 0, -1) / 820)
    shuffled = tf.data.Dataset.from_tensor_slices(({"row": np.arange(960)}, labels)).batch(60)
    batches = list(neighbour(model_code, "composed_batches").composed(shuffled, rows_of_a_class=4, together=8))
    assert [len(label) for _, label in batches] == [60] * 16
    seen = np.concatenate([features["row"].numpy() for features, _ in batches])
    assert sorted(seen) == list(range(960))
    np.testing.assert_array_equal(labels[seen], np.concatenate([label.numpy() for _, label in batches]))
    assert alone([label.numpy() for _, label in batches]) < 0.4 * alone([label.numpy() for _, label in shuffled])


def alone(batches: list[np.ndarray[tuple[int, ...], np.dtype[np.int64]]]) -> int:
    """Rows whose class nobody else in their batch has."""
    return sum(int((np.bincount(labels) == 1).sum()) for labels in batches)


def test_the_vote_is_that_of_all_rows_by_nearness(model_code: ModuleType) -> None:
    generator = np.random.default_rng(2)
    unit = generator.normal(size=(300, 6)).astype("float32")
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    labels, weights = generator.integers(0, 4, 300), generator.random(300).astype("float32")
    index = neighbour(model_code, "labelled_neighbours").LabelledNeighbours(300, 6, 4, temperature=0.1, reasons=3)
    index.fill(unit, labels, weights, np.array([b"row %d" % place for place in range(300)]))
    asked = unit[:200] + 0.1
    asked /= np.linalg.norm(asked, axis=1, keepdims=True)
    found = {name: value.numpy() for name, value in index(tf.constant(asked)).items()}  # more than are asked at once
    votes = np.exp(asked @ unit.T / 0.1) * weights
    shares = np.stack([votes[:, labels == each].sum(axis=1) for each in range(4)], axis=1) / votes.sum(axis=1, keepdims=True)
    np.testing.assert_array_equal(found["label"], shares.argmax(axis=1))
    np.testing.assert_allclose(found["confidence"], shares.max(axis=1), rtol=1e-4)
    np.testing.assert_allclose(found["similarity"], (asked @ unit.T).max(axis=1), atol=1e-5)
    found = {name: value.numpy() for name, value in index.why(tf.constant(asked)).items()}
    weightiest = np.argsort(-votes, axis=1)[:, :3]
    assert [[int(key.split()[1]) for key in keys] for keys in found["explained_by"]] == weightiest.tolist()
    np.testing.assert_array_equal(found["explained_by_label"], labels[weightiest])
    np.testing.assert_allclose(
        found["attributions"], np.take_along_axis(votes, weightiest, axis=1) / votes.sum(axis=1, keepdims=True), rtol=1e-4
    )


def test_tensorflow_may_leave_away_the_search_that_nobody_asked_for(model_code: ModuleType) -> None:
    """It leaves away only loops without state."""
    index = neighbour(model_code, "labelled_neighbours").LabelledNeighbours(30, 6, 4)
    graph = tf.function(index.call).get_concrete_function(tf.TensorSpec([None, 6])).graph
    assert sorted(operation.type for operation in graph.get_operations() if "While" in operation.type) == ["StatelessWhile"]


def test_an_index_that_is_too_small_keeps_the_newest_of_each_class(model_code: ModuleType) -> None:
    labels = np.array([0, 0, 0, 0, 0, 0, 1, 0, 2, 1])
    kept = neighbour(model_code, "labelled_neighbours").chosen(labels, 5)
    assert kept.tolist() == [5, 6, 7, 8, 9]
    assert neighbour(model_code, "labelled_neighbours").chosen(labels, 10).tolist() == list(range(10))


def with_keys(dataset: tf.data.Dataset) -> Callable[..., tf.data.Dataset]:
    """`examples` of the rows of a dataset of features and labels."""

    def keyed(features: dict[str, tf.Tensor], label: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        return {**features, KEY: tf.strings.as_string(label)}, label

    def examples(*, keys: bool) -> tf.data.Dataset:
        assert keys
        return dataset.map(keyed)

    return examples


def test_a_few_rows_are_enough_to_learn_and_a_new_class_counts_without_training(model_code: ModuleType) -> None:
    known = ("cafe", "petrol", "books", "rail", "hotel", "timber")
    features, label = rows(640, words=known)
    told = context(known, table_bits=13, embedding_size=16, hidden=64, text_width=32, cross_width=2)
    keras.utils.set_random_seed(17)
    model = model_code.build(told)
    dataset = tf.data.Dataset.from_tensor_slices((features, label)).batch(32)
    model.fit(model_code.batches(dataset.repeat(), told), epochs=4, steps_per_epoch=16, verbose=0)
    before = [value.copy() for value in model.get_weights()]

    finished = model_code.finish(model, told, with_keys(dataset))
    later, answer = rows(100, seed=1, words=known)
    np.testing.assert_allclose(np.linalg.norm(finished.predict(later, verbose=0)["embedding"], axis=1), 1.0, atol=1e-5)
    assert float((finished.predict(later, verbose=0)["label"] == answer.numpy()).mean()) > 0.95

    few, _ = rows(8, seed=2, words=("harbour dues",))
    with_new = dataset.concatenate(tf.data.Dataset.from_tensors((few, tf.fill([8], tf.constant(6, tf.int64)))))
    wider = model_code.finish(model, replace(told, classes=(*known, "harbour dues")), with_keys(with_new))
    asked, _ = rows(40, seed=3, words=("harbour dues",))
    assert (wider.predict(asked, verbose=0)["label"] == 6).mean() > 0.8
    assert float((wider.predict(later, verbose=0)["label"] == answer.numpy()).mean()) > 0.95
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_unseen_merchant_still_has_pieces_that_were_seen(model_code: ModuleType) -> None:
    layers = neighbour(model_code, "similarity_layers")

    def pieces_of(name: str) -> set[int]:
        given = {"merchant": tf.constant([name]), "brand": tf.constant([name])}
        return set(layers.TextPieces(1 << 20)(given).numpy()[0]) - {0}

    known = pieces_of("keltex cafe 0173")
    assert len(known & pieces_of("dormont cafe 9921")) > len(known & pieces_of("dormont fuel 9921"))
    assert pieces_of("") == set()


def test_the_encoder_exports_and_answers_alike(model_code: ModuleType, tmp_path: Path) -> None:
    features, label = rows(40)
    finished = model_code.finish(model_code.build(context()), context(), with_keys(tf.data.Dataset.from_tensors((features, label))))
    finished.export(tmp_path / "model", verbose=False)
    exported = tf.saved_model.load(str(tmp_path / "model"))
    answers = exported.serve(features)
    for name, value in finished.predict(features, verbose=0).items():
        np.testing.assert_allclose(answers[name], value, atol=1e-5)
    assert isinstance(finished, keras.Model)
