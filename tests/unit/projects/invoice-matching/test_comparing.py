"""Comparisons of texts in TensorFlow are those of their definitions."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

Code = Callable[[str], ModuleType]
SHORT = st.text("abc1", max_size=7)


def levenshtein(left: str, right: str) -> int:
    """By the textbook's table."""
    row = list(range(len(right) + 1))
    for at, letter in enumerate(left, start=1):
        before, row[0] = row[0], at
        for place, other in enumerate(right, start=1):
            before, row[place] = row[place], min(before + (letter != other), row[place] + 1, row[place - 1] + 1)
    return row[-1]


@given(SHORT, SHORT)
@settings(max_examples=25, deadline=None)
def test_distances_are_levenshteins(code: Code, left: str, right: str) -> None:
    comparing = code("comparing")
    (whole,) = comparing.distance(tf.constant([left]), tf.constant([right]), length=8).numpy()
    longest = max(len(left), len(right))
    assert whole == pytest.approx(levenshtein(left, right) / longest if longest else 1.0)
    (within,) = comparing.distance_within(tf.constant([left]), tf.constant([right]), longest=8, length=8).numpy()
    parts = [right[a:b] for a in range(len(right) + 1) for b in range(a, len(right) + 1)]
    assert within == min(levenshtein(left, part) for part in parts)


def test_a_batch_is_compared_row_by_row(code: Code) -> None:
    comparing = code("comparing")
    left, right = tf.constant(["kelton timber", "", "abc", "aaaa"]), tf.constant(["kelton timbre", "x", "abc", "aaab"])
    together = comparing.grams(left, right, length=20).numpy()
    alone = [comparing.grams(left[at : at + 1], right[at : at + 1], length=20).numpy()[0] for at in range(4)]
    assert np.array_equal(together, alone)
    assert together[2] == 1.0
    assert together[1] == 0.0
    assert 0.7 < together[0] < 1.0


def test_words_count_by_what_they_are_worth_and_once(code: Code) -> None:
    comparing = code("comparing")
    worth = {"": 0.0, "ltd": 1.0, "kelton": 9.0, "timber": 5.0}

    def looked_up(asked: tf.Tensor) -> tf.Tensor:
        return tf.constant(np.vectorize(lambda word: worth[word.decode()])(asked.numpy()).astype(np.float32))

    left = comparing.words(tf.constant(["kelton ltd ltd", ""]), 4)
    right = comparing.words(tf.constant(["kelton timber", "kelton"]), 4)
    of_left, of_right, cosine = (value.numpy() for value in comparing.shared_worth(left, right, looked_up))
    assert of_left.tolist() == pytest.approx([0.9, 0.0])
    assert of_right.tolist() == pytest.approx([9 / 14, 0.0])
    assert cosine[0] == pytest.approx(81 / np.sqrt((81 + 1) * (81 + 25)))
    assert comparing.has_word(left, right).numpy().tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("text", "cleaned", "runs"),
    [
        ("INV 2024/004711", "inv 2024 004711", "2024 4711"),
        ("", "", ""),
        ("caf\xe9 & Co.", "caf co", ""),
        ("0x0", "0 x 0".replace(" ", ""), ""),
    ],
)
def test_text_is_cleaned_and_numbers_lose_their_zeros(code: Code, text: str, cleaned: str, runs: str) -> None:
    comparing = code("comparing")
    assert comparing.cleaned(tf.constant([text])).numpy()[0].decode() == cleaned
    assert comparing.digit_runs(tf.constant([text])).numpy()[0].decode() == runs
