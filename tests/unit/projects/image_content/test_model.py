"""The image model sees the same pixels everywhere, changes them only as it may, and answers for what is no image as well."""

from __future__ import annotations

import io
from pathlib import Path
from types import ModuleType
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from mlpipelines.project_code import FeatureSpec, ModelContext
from project_modules import module_beside, module_of

PROJECT = Path(__file__).parents[4] / "pipelines" / "projects" / "image-content"
SPECS = {"image": FeatureSpec(dtype="string")}
SMALL = {"image_size": 16, "patch_size": 8, "width": 8, "layers": 1, "heads": 2, "stem": 4}

model_code = module_of(PROJECT, "model")
layers = module_beside("model_code", "image_layers")
augmentation = module_beside("model_code", "augmentation")


def context(task: str = "multilabel", **parameters: object) -> ModelContext:
    return ModelContext(
        features=SPECS, task=task, classes=("dark", "light"), class_rows=(90, 10), parameters={**SMALL, **parameters},
        train_rows=100, batch_size=16, epochs=2, seed=3,
    )  # fmt: skip


def file(shade: int = 128, *, size: tuple[int, int] = (16, 16), kind: str = "PNG") -> bytes:
    """An image of one shade of grey."""
    to = io.BytesIO()
    Image.new("RGB", size, (shade, shade, shade)).save(to, kind)
    return to.getvalue()


def shades(count: int) -> tuple[list[bytes], np.ndarray]:
    """Files from dark to light, and which of both each is."""
    every = np.linspace(0, 255, count).astype(int)
    return [file(int(shade)) for shade in every], np.stack([every < 100, every > 200], axis=1)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP"])
def test_every_kind_of_file_gives_the_same_pixels(layers: ModuleType, kind: str) -> None:
    pixels = layers.decoded(tf.constant([file(255, kind=kind), file(0, kind=kind)]), 16).numpy()
    assert pixels.shape == (2, 16, 16, 3)
    assert np.allclose(pixels[0], 1.0, atol=0.03)
    assert np.allclose(pixels[1], -1.0, atol=0.03)


def test_nothing_of_a_wide_image_is_cut_off_and_the_rest_is_grey(layers: ModuleType) -> None:
    pixels = layers.decoded(tf.constant([file(255, size=(64, 32))]), 16).numpy()[0, :, :, 0]
    assert np.allclose(pixels[4:12], 1.0, atol=0.01)
    assert np.allclose(pixels[[0, 1, 2, 13, 14, 15]], 0.0, atol=0.01)


@pytest.mark.parametrize("side", [16, 31, 32, 40, 64, 200])
def test_a_large_jpeg_gives_what_the_same_picture_gives_in_a_file_that_loses_nothing(layers: ModuleType, side: int) -> None:
    slope = np.linspace(20, 230, side).astype(np.uint8)
    files = []
    for kind in ("JPEG", "PNG"):
        to = io.BytesIO()
        Image.fromarray(np.stack([np.tile(slope, (side, 1))] * 3, axis=-1)).save(to, kind)
        files.append(to.getvalue())
    jpeg, png = layers.decoded(tf.constant(files), 16).numpy()
    assert np.abs(jpeg - png).max() < 0.06


def test_colours_change_by_their_strength_and_grey_keeps_its_hue(augmentation: ModuleType) -> None:
    grey = tf.fill([16, 16, 16, 3], 0.4)
    seen = augmentation.changed(grey, augmentation.Changes(crop=1.0, shift=0.0, colour=0.1), tf.constant([1, 5])).numpy()
    assert np.abs(seen - seen[..., :1]).max() < 1e-5
    assert 0.01 < np.abs(seen - 0.4).max() <= 0.4 * 0.1 + 0.1 + 1e-5


@pytest.mark.parametrize("text", [b"", b"hello", b"\xff", "привет".encode()])
def test_what_is_no_image_is_grey_and_said_to_be_unreadable(layers: ModuleType, text: bytes) -> None:
    both = tf.constant([text, file(0)])
    assert layers.readable(both).numpy().tolist() == [False, True]
    assert np.allclose(layers.decoded(both, 16).numpy()[0], 0.0)


def test_a_file_that_ends_in_the_middle_is_an_error_and_not_an_answer(layers: ModuleType) -> None:
    with pytest.raises(tf.errors.InvalidArgumentError):
        layers.decoded(tf.constant([file(kind="JPEG")[:300]]), 16)


def test_the_same_seed_changes_pictures_in_the_same_way_and_each_in_its_own(augmentation: ModuleType) -> None:
    pixels = tf.tile(tf.random.stateless_uniform([1, 16, 16, 3], [1, 2], -1.0, 1.0), [8, 1, 1, 1])
    changes = augmentation.Changes(erase=0.5)
    first, again, other = (augmentation.changed(pixels, changes, tf.constant(seed)).numpy() for seed in ([1, 1], [1, 1], [1, 2]))
    assert np.array_equal(first, again)
    assert not np.allclose(first, other)
    assert not np.allclose(first[0], first[1])
    assert -1.0 <= first.min() <= first.max() <= 1.0


def test_without_changes_a_picture_stays_and_a_mirrored_one_is_exactly_that(augmentation: ModuleType) -> None:
    pixels = tf.random.stateless_uniform([32, 16, 16, 3], [1, 2], -1.0, 1.0)
    none = {"crop": 1.0, "shift": 0.0, "colour": 0.0, "erase": 0.0}
    same = augmentation.changed(pixels, augmentation.Changes(**none, flip=False), tf.constant([1, 1]))
    assert np.allclose(same, pixels, atol=1e-5)
    seen = augmentation.changed(pixels, augmentation.Changes(**none, flip=True), tf.constant([1, 1])).numpy()
    mirrored = np.array([np.allclose(one, was[:, ::-1], atol=1e-5) for one, was in zip(seen, pixels.numpy(), strict=True)])
    stayed = np.array([np.allclose(one, was, atol=1e-5) for one, was in zip(seen, pixels.numpy(), strict=True)])
    assert (mirrored ^ stayed).all()
    assert 5 < mirrored.sum() < 27


def test_training_batches_come_decoded_and_the_same_for_the_same_seed(model_code: ModuleType) -> None:
    files, label = shades(16)
    dataset = tf.data.Dataset.from_tensors(({"image": tf.constant(files)}, label, tf.ones(16))).repeat(3)
    first, again = (list(model_code.batches(dataset, context())) for _ in range(2))
    assert [set(features) for features, *_ in first] == [{"pixels"}] * 3
    for (one, _, _), (other, was, weight) in zip(first, again, strict=True):
        assert np.array_equal(one["pixels"], other["pixels"])
        assert np.array_equal(was, label)
        assert weight.shape == [16]
    assert not np.array_equal(first[0][0]["pixels"], first[1][0]["pixels"])


@pytest.mark.parametrize("architecture", ["vit", "cct", "cnn"])
def test_every_architecture_answers_files_as_it_answers_their_pixels(model_code: ModuleType, layers: ModuleType, architecture: str) -> None:
    model = model_code.build(context("classification", architecture=architecture))
    files = tf.constant(shades(4)[0])
    answer = model({"image": files}).numpy()
    assert np.allclose(answer, model({"pixels": layers.decoded(files, 16)}), atol=1e-6)
    assert np.allclose(answer.sum(axis=1), 1.0, atol=1e-5)


def test_a_preset_from_a_folder_brings_its_weights_and_its_image_size(model_code: ModuleType, tmp_path: Path) -> None:
    import keras_hub

    trained = keras_hub.models.ViTBackbone(
        image_shape=(24, 24, 3), patch_size=12, num_layers=1, num_heads=2, hidden_dim=8, mlp_dim=16
    )  # fmt: skip
    trained.save_to_preset(str(tmp_path / "preset"))
    model = model_code.build(context(preset=str(tmp_path / "preset"), frozen=True))
    pixels = tf.random.stateless_uniform([2, 24, 24, 3], [1, 2], -1.0, 1.0)
    assert np.allclose(model.eye(pixels), trained(pixels)[:, 0], atol=1e-6)
    assert len(model.trainable_variables) == 2, "the head learns, and nothing else"
    assert model({"image": tf.constant([file()])}).shape == (1, 2)
    ((features, _),) = model_code.batches(
        tf.data.Dataset.from_tensors(({"image": tf.constant([file()])}, tf.zeros([1, 2]))), context(preset=str(tmp_path / "preset"))
    )
    assert features["pixels"].shape == (1, 24, 24, 3)


def test_in_mixed_precision_the_inside_is_small_and_the_answer_is_not(model_code: ModuleType) -> None:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = model_code.build(context())
    finally:
        keras.config.set_dtype_policy(before)
    assert model.eye.layers[-1].compute_dtype == "bfloat16"
    assert model({"image": tf.constant([file()])}).dtype == tf.float32


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"patchsize": 4}, "patchsize means nothing"),
        ({"architecture": "mlp"}, "'mlp'; there are vit, cct, cnn"),
        ({"preset": "./none"}, "none"),
    ],
)
def test_a_parameter_that_means_nothing_is_named(model_code: ModuleType, parameters: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        model_code.build(context(**parameters))


def test_missing_a_rare_content_costs_more_than_missing_a_frequent_one(model_code: ModuleType) -> None:
    loss = model_code.build(context()).loss
    sure_of_neither = tf.constant([[0.1, 0.1]])
    frequent, rare = (float(loss(tf.constant([has]), sure_of_neither)) for has in ([1.0, 0.0], [0.0, 1.0]))
    assert rare > 2 * frequent
    plain = model_code.WeighedCrossEntropy([1.0, 1.0])
    truth, answer = tf.constant([[1.0, 0.0], [0.0, 0.0]]), tf.constant([[0.7, 0.2], [0.4, 0.9]])
    assert float(plain(truth, answer)) == pytest.approx(float(keras.losses.BinaryCrossentropy()(truth, answer)), rel=1e-5)


def test_what_is_served_has_its_cuts_at_a_half_and_zeros_where_there_is_no_image(model_code: ModuleType) -> None:
    files, label = shades(120)
    pixels = keras.Input((16, 16, 3))
    brightness = keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(pixels))
    model = model_code.ImageModel(brightness, classes=2, many=True, dropout=0.0)
    model.head.kernel.assign(np.array([[-1.0, 1.0]] * 3) / 3.0)
    model.head.bias.assign(np.array([-3.0, -3.0]))

    def examples(split: str = "train") -> tf.data.Dataset:
        assert split == "validation", "cuts are not chosen on rows that the weights were fitted on"
        return tf.data.Dataset.from_tensor_slices(({"image": files}, label)).batch(50)

    served = model_code.finish(model, context(), examples)
    before = model({"image": tf.constant(files)}).numpy()
    answer = {name: value.numpy() for name, value in served({"image": tf.constant([*files, b"", b"no image"])}).items()}
    assert not (before >= 0.5).any(), "without cuts of their own nothing would be found"
    assert np.array_equal(answer["scores"][:120] >= 0.5, label)
    assert answer["readable"].tolist() == [1.0] * 120 + [0.0] * 2
    assert not answer["scores"][120:].any()


def test_the_parts_of_an_image_and_grey_add_up_to_its_highest_score(model_code: ModuleType) -> None:
    keras.utils.set_random_seed(5)
    many = model_code.ImageModel(model_code.backbone({**model_code.DEFAULTS, **SMALL}), classes=2, many=True, dropout=0.0)
    served = model_code.Served(many, np.array([0.3, -0.2]))
    half = np.full((8, 16, 3), 128, np.uint8)
    half[:, :8] = (250, 10, 60)
    asked = {"image": tf.constant([file(250), picture(half), b"no image"])}
    scores = served(asked)["scores"].numpy().max(axis=1)
    said = {name: value.numpy() for name, value in served.explain(asked).items()}
    assert said["attributions"].shape == said["explained_by"].shape == (3, 64)
    np.testing.assert_allclose(said["attributions"].sum(axis=1) + said["base_score"], scores, atol=1e-3)
    assert (np.diff(np.abs(said["attributions"]), axis=1) <= 0).all()
    assert not said["attributions"][2].any(), "nothing was looked at"
    parts = dict(zip(said["explained_by"][1].tolist(), said["attributions"][1].tolist(), strict=True))
    assert set(parts) >= {b"x 0-12 y 0-12", b"x 88-100 y 88-100"}
    beside = [part for name, part in parts.items() if name.split(b"y ")[1] in (b"0-12", b"12-25", b"75-88", b"88-100")]
    assert len(beside) == 32
    assert np.abs(beside).max() < 1e-6, "what lies beside a wide image makes nothing"


def picture(pixels: np.ndarray) -> bytes:
    to = io.BytesIO()
    Image.fromarray(pixels).save(to, "PNG")
    return to.getvalue()
