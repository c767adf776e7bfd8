"""The transactions model takes rows to pieces the same way everywhere, learns from a few, and says nothing about what it never saw."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import keras
import numpy as np
import pytest
import tensorflow as tf

from mlpipelines.project_code import FeatureSpec, ModelContext
from project_modules import module_beside, module_of

PROJECT = Path(__file__).parents[4] / "pipelines" / "projects" / "transactions"
SPECS = {
    "merchant": FeatureSpec(dtype="string"),
    "brand": FeatureSpec(dtype="string"),
    "vat": FeatureSpec(dtype="int64"),
    "team": FeatureSpec(dtype="int64"),
    "cost_centre": FeatureSpec(dtype="int64"),
    "pence": FeatureSpec(dtype="int64"),
    "numbers": FeatureSpec(dtype="float32", shape=(7,)),
    "weekday": FeatureSpec(dtype="int64"),
    "age_days": FeatureSpec(dtype="int64"),
}

model_code = module_of(PROJECT, "model")
features_code = module_of(PROJECT, "features")
layers = module_beside("model_code", "transaction_layers")


def context(**parameters: object) -> ModelContext:
    small = {"table_bits": 9, "hidden": 16, "text_width": 8, "cross_width": 4, "learning_rate": 0.02, **parameters}
    return ModelContext(features=SPECS, classes=("cafe", "fuel"), parameters=small, train_rows=256, batch_size=32, epochs=6)


def rows(count: int, seed: int = 0) -> tuple[dict[str, tf.Tensor], np.ndarray[tuple[int, ...], np.dtype[np.int64]]]:
    """Two kinds of merchant, each with its words, and everything else at random."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, count)
    names = [f"{('cafe', 'petrol')[kind]} number {rng.integers(50)}" for kind in label]
    numbers = {name: tf.constant(rng.integers(0, 5, count)) for name in ("vat", "team", "cost_centre", "weekday", "age_days")}
    text = {"merchant": tf.constant(names), "brand": tf.constant([name.rsplit(" ", 1)[0] for name in names])}
    money = {"pence": tf.constant(rng.integers(-500, 9_000, count)), "numbers": tf.constant(rng.normal(size=(count, 7)).astype("float32"))}
    return {**text, **numbers, **money}, label


@pytest.mark.parametrize(
    ("shown", "cleaned"),
    [("SQ *Keltex CAFE  0173", "sq keltex cafe 0173"), ("", ""), ("***", ""), ("caf\xe9 \x00ok", "caf ok")],
)
def test_descriptors_lose_case_and_punctuation(features_code: ModuleType, shown: str, cleaned: str) -> None:
    assert features_code.cleaned(tf.constant([shown])).numpy()[0].decode() == cleaned


def test_bytes_that_are_no_text_do_no_harm(features_code: ModuleType) -> None:
    assert features_code.cleaned(tf.constant([b"\xff\xfeCAF\xe9 9"])).numpy()[0].startswith(b"\xff\xfecaf")


def test_a_missing_amount_is_nothing_and_a_refund_is_negative(features_code: ModuleType) -> None:
    assert features_code._pence(tf.constant([float("nan"), -12.34, 0.29])).numpy().tolist() == [0, -1234, 29]


def test_pieces_are_rows_of_the_table_and_empty_names_have_none(layers: ModuleType) -> None:
    text = {"merchant": tf.constant(["keltex cafe 0173", "k", "", "x" * 300]), "brand": tf.constant(["keltex cafe", "k", "", "x" * 300])}
    pieces = layers.PiecesOfText(1024)(text).numpy()
    assert pieces.shape == (4, 91)
    assert pieces.min() == 0
    assert pieces.max() < 1024
    assert (pieces[0] > 0).sum() == 17 + 16 + 15 + 14 + 2  # " keltex cafe 0000 " has 18 letters
    assert (pieces[2, -5:] == 0).all()


def test_names_that_share_letters_share_pieces(layers: ModuleType) -> None:
    def pieces_of(name: str) -> set[int]:
        return set(layers.PiecesOfText(1 << 20)({"merchant": tf.constant([name]), "brand": tf.constant([name])}).numpy()[0]) - {0}

    known = pieces_of("keltex cafe")
    assert len(known & pieces_of("keltx cafe")) > 2 * len(known & pieces_of("dormont fuel"))


def test_rows_are_the_same_in_a_graph_and_without_one(layers: ModuleType) -> None:
    features, _ = rows(50)
    crosses = layers.Crosses(4096)
    np.testing.assert_array_equal(crosses(features), tf.function(crosses)(features))


def test_few_different_crosses_collide(layers: ModuleType) -> None:
    values = tf.range(20_000, dtype=tf.int64)
    table_rows = layers.row_of(layers.mixed(values, values[::-1]), 1 << 20).numpy()
    assert len(np.unique(table_rows)) > 19_700  # 19,810 are expected of a random function


@pytest.mark.parametrize("layer", ["SumOfPieces", "EachPiece"])
def test_what_training_never_saw_says_nothing(layers: ModuleType, layer: str) -> None:
    votes, rest = getattr(layers, layer)(64, 3, 2)(tf.constant([[5, 0, 9], [0, 0, 0]]))
    assert not votes.numpy().any()
    assert not rest.numpy().any()


@pytest.mark.parametrize("layer", ["SumOfPieces", "EachPiece"])
def test_pieces_are_dropped_in_training_only(layers: ModuleType, layer: str) -> None:
    table = getattr(layers, layer)(64, 1, 2, drop=0.5)
    pieces = tf.ones([200, 4], tf.int32)
    table(pieces)
    table.table.assign(np.ones((64, 3), "float32"))
    assert len(np.unique(table(pieces)[0].numpy())) == 1
    assert len(np.unique(table(pieces, training=True)[0].numpy())) > 2


def test_votes_and_embeddings_are_what_a_plain_sum_over_the_pieces_gives(layers: ModuleType) -> None:
    generator = np.random.default_rng(3)
    table = generator.normal(size=(64, 5)).astype("float32")
    pieces = generator.integers(0, 12, size=(30, 7)).astype("int32")
    pieces[4] = 0
    here = (pieces > 0).astype("float32")
    number = np.maximum(here.sum(axis=1, keepdims=True), 1)
    each = table[pieces] * here[..., None]
    for layer, rest in ((layers.SumOfPieces(64, 3, 2), each.sum(axis=1)[:, 3:] / number), (layers.EachPiece(64, 3, 2), each[..., 3:])):
        layer.build(pieces.shape)
        layer.table.assign(table)
        with tf.GradientTape() as tape:
            votes, embedded = layer(tf.constant(pieces))
            total = tf.reduce_sum(votes)
        np.testing.assert_allclose(votes, each.sum(axis=1)[:, :3] / np.sqrt(number), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(embedded, rest.reshape(30, -1), rtol=1e-5, atol=1e-6)
        slope = np.zeros((64, 5), "float32")
        np.add.at(slope[:, :3], pieces, np.broadcast_to((here / np.sqrt(number))[..., None], (30, 7, 3)))
        np.testing.assert_allclose(tf.convert_to_tensor(tape.gradient(total, layer.table)), slope, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_a_few_rows_are_enough_to_learn_and_the_export_answers_alike(model_code: ModuleType, tmp_path: Path) -> None:
    features, label = rows(256)
    dataset = tf.data.Dataset.from_tensor_slices((features, label)).batch(32)
    model = model_code.build(context())
    model.fit(model_code.batches(dataset, context(half_life_days=30)), epochs=6, verbose=0)
    later, answer = rows(100, seed=1)
    scores = model.predict(later, verbose=0)
    assert float((scores.argmax(axis=1) == answer).mean()) > 0.95
    np.testing.assert_allclose(scores.sum(axis=1), 1.0, atol=1e-5)
    model.export(tmp_path / "model", verbose=False)
    exported = tf.saved_model.load(str(tmp_path / "model"))
    np.testing.assert_allclose(exported.serve(later), scores, atol=1e-5)


def test_a_parameter_that_means_nothing_is_refused_by_name(model_code: ModuleType) -> None:
    with pytest.raises(ValueError, match="hiden"):
        model_code.build(context(hiden=3))


def test_rows_a_half_life_old_weigh_half(model_code: ModuleType) -> None:
    dataset = tf.data.Dataset.from_tensors(({"age_days": tf.constant([0, 30, 60], tf.int64)}, tf.constant([1, 0, 1])))
    *_, weights = next(iter(model_code.batches(dataset, context(half_life_days=30))))
    np.testing.assert_allclose(weights, [1.0, 0.5, 0.25])


def test_balance_divides_by_what_a_class_is_short_of_rows_and_keeps_probabilities(model_code: ModuleType) -> None:
    features, _ = rows(20)
    model = model_code.build(context())
    examples = tf.data.Dataset.from_tensors((features, tf.constant([0] * 17 + [1] * 3)))
    scores, balanced = (m.predict(features, verbose=0) for m in (model, model_code.finish(model, context(balance=0.5), lambda: examples)))
    np.testing.assert_allclose(balanced.sum(axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(balanced[:, 1] / balanced[:, 0], scores[:, 1] / scores[:, 0] * np.sqrt(18 / 4), rtol=1e-4)
    assert model_code.finish(model, context(), lambda: examples) is model


def test_smoothed_loss_is_cross_entropy_without_smoothing_and_higher_with(model_code: ModuleType) -> None:
    sure = tf.constant([[0.99, 0.01]])
    assert float(model_code.SmoothedCrossEntropy(0.0)(tf.constant([0]), sure)) == pytest.approx(-np.log(0.99), abs=1e-5)
    assert float(model_code.SmoothedCrossEntropy(0.1)(tf.constant([0]), sure)) > -np.log(0.99)


def test_lazy_adam_is_adam_where_every_row_is_touched_and_rests_where_none_is(model_code: ModuleType) -> None:
    del model_code  # puts the folder on the path
    table = {name: keras.Variable(np.ones((4, 2), "float32")) for name in ("lazy", "keras")}
    optimizers = {"lazy": sys.modules["lazy_adam"].LazyAdam(0.1), "keras": keras.optimizers.Adam(0.1)}
    every = tf.IndexedSlices(tf.constant([[1.0, -2.0]] * 5), tf.constant([0, 1, 2, 3, 3]), tf.constant([4, 2]))
    for name, optimizer in optimizers.items():
        gradient = every if name == "lazy" else tf.convert_to_tensor(every)
        for _ in range(3):
            optimizer.apply([gradient], [table[name]])
    np.testing.assert_allclose(table["lazy"], table["keras"], atol=1e-5)
    before = table["lazy"].numpy()
    optimizers["lazy"].apply([tf.IndexedSlices(tf.constant([[5.0, 5.0]]), tf.constant([1]), tf.constant([4, 2]))], [table["lazy"]])
    assert (table["lazy"].numpy() != before).any(axis=1).tolist() == [False, True, False, False]
