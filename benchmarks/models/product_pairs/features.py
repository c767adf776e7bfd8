"""Two products, one of each shop, as numbers that say how alike they are, by the comparisons of `comparing.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import comparing  # type: ignore[import-not-found]  # put beside this file before it is run
import tensorflow as tf
import tensorflow_transform as tft

_WORDS, _TITLE, _MODEL = 28, 128, 16


def preprocessing_fn(inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """See `mlpipelines.project_code` for the contract. `clues` is [batch, n], as the model of invoice-matching takes it."""
    text = {name: comparing.cleaned(inputs[name]) for name in inputs if not name.endswith("price")}
    columns = [*_titles(text), *_codes(text), *_models(text), *_brands(text), *_prices(inputs["left_price"], inputs["right_price"])]
    return {"clues": tf.stack([tft.scale_to_z_score(tf.cast(column, tf.float32)) for column in columns], axis=1)}


def _titles(text: dict[str, tf.Tensor]) -> Iterator[tf.Tensor]:
    left, right = text["left_title"], text["right_title"]
    worth = comparing.rarity([left, right], "words_of_titles", _WORDS)
    mine, theirs = comparing.words(left, _WORDS), comparing.words(right, _WORDS)
    yield from comparing.shared_worth(mine, theirs, worth)
    yield _worth_missing(mine, theirs, worth)
    yield _worth_missing(theirs, mine, worth)
    yield comparing.grams(left, right, length=_TITLE)
    yield comparing.distance(left, right, length=48)
    yield comparing.grams(text["left_category"], text["right_category"], length=32)
    yield tf.abs(tf.math.log(_length(left) / _length(right)))
    spoken = [tf.strings.regex_replace(title, r"[a-z]*[0-9][a-z0-9]*", " ") for title in (left, right)]
    yield from comparing.shared_worth(*(comparing.words(each, _WORDS) for each in spoken), worth)


def _codes(text: dict[str, tf.Tensor]) -> Iterator[tf.Tensor]:
    """Words with a digit: sizes, colours' numbers, models."""
    codes = [tf.strings.regex_replace(text[name], r"(^| )[a-z]+\b", " ") for name in ("left_title", "right_title")]
    mine, theirs = (comparing.words(each, _WORDS) for each in codes)
    worth = comparing.rarity(codes, "words_with_digits", _WORDS)
    yield from comparing.shared_worth(mine, theirs, worth)
    yield _worth_missing(mine, theirs, worth)
    yield _worth_missing(theirs, mine, worth)
    runs = [comparing.words(comparing.digit_runs(text[name]), _WORDS) for name in ("left_title", "right_title")]
    yield from comparing.shared_worth(*runs, lambda asked: tf.cast(asked != "", tf.float32))[:2]


def _worth_missing(left: tf.Tensor, right: tf.Tensor, worth: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
    """What the most telling word of the left title, [batch, n], is worth that the right one does not have; 0 where it has all. Products differ by one word."""
    there = tf.reduce_any(left[:, :, None] == right[:, None, :], 2)
    return tf.reduce_max(tf.where(there, 0.0, worth(left)), axis=1)


def _models(text: dict[str, tf.Tensor]) -> Iterator[tf.Tensor]:
    mine, theirs = (comparing.compact(text[name]) for name in ("left_modelno", "right_modelno"))
    here, there = (comparing.compact(text[name]) for name in ("left_title", "right_title"))
    both = tf.cast((mine != "") & (theirs != ""), tf.float32)
    yield both
    yield both * comparing.distance(mine, theirs, length=_MODEL)
    yield both * tf.cast(mine == theirs, tf.float32)
    for model, title in ((mine, there), (theirs, here)):
        size = tf.minimum(tf.cast(tf.strings.length(model), tf.float32), float(_MODEL))
        wrong = comparing.distance_within(model, title, longest=_MODEL, length=_TITLE)
        yield size
        yield tf.where(size > 2, wrong / tf.maximum(size, 1.0), 1.0)
        yield tf.cast((wrong < 0.5) & (size > 3), tf.float32)


def _brands(text: dict[str, tf.Tensor]) -> Iterator[tf.Tensor]:
    mine, theirs = text["left_brand"], text["right_brand"]
    yield comparing.grams(mine, theirs, length=24)
    yield tf.cast(theirs == "", tf.float32)
    yield comparing.has_word(comparing.words(mine, 2), comparing.words(text["right_title"], _WORDS))
    yield comparing.has_word(comparing.words(theirs, 2), comparing.words(text["left_title"], _WORDS))


def _prices(left: tf.Tensor, right: tf.Tensor) -> Iterator[tf.Tensor]:
    there = (left > 0) & (right > 0)
    ratio = tf.math.log(tf.where(there, left, 1.0) / tf.where(there, right, 1.0))
    yield tf.cast(there, tf.float32)
    yield tf.clip_by_value(ratio, -3.0, 3.0)
    yield tf.minimum(tf.abs(ratio), 3.0)


def _length(text: tf.Tensor) -> tf.Tensor:
    return tf.maximum(tf.cast(tf.strings.length(text), tf.float32), 1.0)
