"""How alike are two texts? The comparisons of which features of pairs are made, as TensorFlow operations.

Story: `features.py` compares a transfer with an invoice. Everything here is general: it takes columns of text, [batch], and returns numbers,
[batch], so that any table of pairs can be compared with it (benchmarks/models/invoice_matching.py does so with products of two shops).
Since it is one graph, a pair is compared in the served model exactly as it was in training.

Words count by how rare they are (Spärck Jones, "A Statistical Interpretation of Term Specificity", 1972). Distances are Levenshtein's (1966),
also to whatever part of a text is nearest (Sellers, "The Theory and Computation of Evolutionary Distances", 1980). Which comparisons
are worth making for matching: Cohen, Ravikumar and Fienberg, "A Comparison of String Metrics for Matching Names and Records", 2003.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf
import tensorflow_transform as tft

Rarity = Callable[[tf.Tensor], tf.Tensor]
_FAR = 1e6
_HASHES = 2**31 - 1


def cleaned(text: tf.Tensor) -> tf.Tensor:
    """Lower case, letters and digits only, single spaces. What is no letter in any encoding becomes a space."""
    return tf.strings.strip(tf.strings.regex_replace(tf.strings.lower(text), r"[^a-z0-9]+", " "))


def digit_runs(text: tf.Tensor) -> tf.Tensor:
    """The runs of digits without their leading zeros, with a space between them."""
    runs = tf.strings.regex_replace(text, r"[^0-9]+", " ")
    return tf.strings.strip(tf.strings.regex_replace(runs, r"(^| )0+", r"\1"))


def compact(text: tf.Tensor) -> tf.Tensor:
    """Without spaces."""
    return tf.strings.regex_replace(text, " ", "")


def words(text: tf.Tensor, most: int) -> tf.Tensor:
    """[batch, most]: the first words of cleaned texts; "" where there are no more."""
    return tf.strings.split(text).to_tensor("", shape=[None, most])


def rarity(texts: Sequence[tf.Tensor], name: str, most: int) -> Rarity:
    """Learn in how many of the texts each word stands; returns what a word is worth: the logarithm of the texts over those that have it.

    A word that was never seen counts as if one text had it, "" is worth nothing.

    Args:
        texts: each [batch], cleaned; counted together.
        name: of the file of words that becomes part of the model.
        most: words of a text that are looked at.
    """
    found = tf.concat([_once(words(text, most)) for text in texts], axis=0)
    flat = tf.reshape(found, [-1])
    file = tft.vocabulary(tf.boolean_mask(flat, flat != ""), vocab_filename=name, store_frequency=True)
    total = tf.cast(len(texts) * tft.size(texts[0]), tf.float32)

    def counts(asked: tf.Tensor, vocabulary: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        initializer = tf.lookup.TextFileInitializer(vocabulary, tf.string, 1, tf.int64, 0, delimiter=" ")
        table = tf.lookup.StaticHashTable(initializer, default_value=1)
        return table.lookup(asked), table.size()

    def worth(asked: tf.Tensor) -> tf.Tensor:
        having = tf.cast(tft.apply_vocabulary(asked, file, lookup_fn=counts), tf.float32)
        return tf.where(asked == "", 0.0, tf.math.log1p(total / tf.maximum(having, 1.0)))

    return worth


def shared_worth(left: tf.Tensor, right: tf.Tensor, worth: Rarity) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """How much of what the words of a text are worth the other has too: of the left one, of the right one, and the cosine of both.

    Args:
        left: [batch, n] words.
        right: [batch, m] words.
        worth: of each word.
    """
    of_left, of_right = worth(_once(left)), worth(_once(right))
    alike = _alike(left, right)
    both_left = tf.reduce_sum(of_left * tf.cast(tf.reduce_any(alike, 2), tf.float32), 1)
    both_right = tf.reduce_sum(of_right * tf.cast(tf.reduce_any(alike, 1), tf.float32), 1)
    squares = tf.reduce_sum(of_left**2 * tf.cast(tf.reduce_any(alike, 2), tf.float32), 1)
    lengths = tf.sqrt(tf.reduce_sum(of_left**2, 1) * tf.reduce_sum(of_right**2, 1))
    total_left, total_right = tf.reduce_sum(of_left, 1), tf.reduce_sum(of_right, 1)
    return _part(both_left, total_left), _part(both_right, total_right), _part(squares, lengths)


def has_word(left: tf.Tensor, right: tf.Tensor) -> tf.Tensor:
    """1.0 where any word of the left text, [batch, n], is one of the right text's, [batch, m]."""
    return tf.cast(tf.reduce_any(_alike(left, right), [1, 2]), tf.float32)


def grams(left: tf.Tensor, right: tf.Tensor, *, length: int) -> tf.Tensor:
    """Dice's coefficient of the runs of three letters in both texts' first `length` letters: 1 where all are shared."""
    first, second = _three(letters(left, length)), _three(letters(right, length))
    alike = (first[:, :, None] == second[:, None, :]) & (first[:, :, None] > 0)
    shared = tf.reduce_sum(tf.cast(tf.reduce_any(alike, 2), tf.float32), 1) + tf.reduce_sum(tf.cast(tf.reduce_any(alike, 1), tf.float32), 1)
    return _part(shared, tf.reduce_sum(tf.cast(first > 0, tf.float32), 1) + tf.reduce_sum(tf.cast(second > 0, tf.float32), 1))


def distance(left: tf.Tensor, right: tf.Tensor, *, length: int) -> tf.Tensor:
    """Letters to insert, drop or replace to make one text of the other, as a part of the longer one; of their first `length` letters."""
    first, second = letters(left, length), letters(right, length)
    ends = _count(second)
    row = _edited(first, second, whole=True)
    away = tf.gather(row, tf.cast(ends, tf.int32), axis=1, batch_dims=1)
    return _part(away, tf.maximum(_count(first), ends), empty=1.0)


def distance_within(pattern: tf.Tensor, text: tf.Tensor, *, longest: int, length: int) -> tf.Tensor:
    """Letters of `pattern` that are wrong where `text` comes nearest to it; all of them where there is no text.

    Args:
        pattern: [batch]; its first `longest` letters are looked for.
        text: [batch]; in its first `length` letters.
        longest: letters of the pattern.
        length: letters of the text.
    """
    first, second = letters(pattern, longest), letters(text, length)
    row = _edited(first, second, whole=False)
    inside = tf.range(length + 1, dtype=tf.float32)[None, :] <= _count(second)[:, None]
    return tf.reduce_min(tf.where(inside, row, _FAR), axis=1)


def letters(text: tf.Tensor, length: int) -> tf.Tensor:
    """[batch, length] int32: the bytes of a text, 0 behind its end."""
    return tf.cast(tf.io.decode_raw(text, tf.uint8, fixed_length=length), tf.int32)


def _edited(pattern: tf.Tensor, text: tf.Tensor, *, whole: bool) -> tf.Tensor:
    """[batch, length + 1]: the distance of the whole pattern to the text up to each place, from its start (`whole`) or from anywhere."""
    places = tf.range(text.shape[1] + 1, dtype=tf.float32)[None, :]
    nothing = tf.zeros_like(text[:, :1], tf.float32) + (places if whole else 0.0 * places)
    longest = text.shape[1] if whole else pattern.shape[1]  # from anywhere, a text is never passed over for longer than the pattern

    def one_letter_more(at: tf.Tensor, row: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        letter = tf.gather(pattern, at[None], axis=1)
        replaced = row[:, :-1] + tf.cast(letter != text, tf.float32)
        came = tf.concat([row[:, :1] + 1.0, tf.minimum(replaced, row[:, 1:] + 1.0)], axis=1)
        return at + 1, tf.where(letter > 0, _lowest_before(came - places, longest) + places, row)

    # a loop and not its letters side by side: the graph is traced, written and loaded by every step and every server
    return tf.while_loop(lambda at, _: at < pattern.shape[1], one_letter_more, (tf.constant(0), nothing))[1]


def _lowest_before(values: tf.Tensor, places: int) -> tf.Tensor:
    """The minimum of each value and of (at least) so many before it along the second axis, in as many steps as `places` has binary digits."""
    step = 1
    while step <= places:
        values = tf.minimum(values, tf.pad(values[:, :-step], [[0, 0], [step, 0]], constant_values=_FAR))
        step *= 2
    return values


def _three(codes: tf.Tensor) -> tf.Tensor:
    """Each three neighbouring letters as one number; 0 behind the end."""
    return tf.where(codes[:, 2:] > 0, codes[:, :-2] + 256 * codes[:, 1:-1] + 65536 * codes[:, 2:], 0)


def _once(found: tf.Tensor) -> tf.Tensor:
    """[batch, n] words with every repetition replaced by ""."""
    hashes = _hashed(found)
    earlier = tf.linalg.band_part(tf.ones([found.shape[1], found.shape[1]]), -1, 0) - tf.eye(found.shape[1])
    repeated = tf.reduce_any((hashes[:, :, None] == hashes[:, None, :]) & (earlier > 0)[None], axis=2)
    return tf.where(repeated, tf.constant(""), found)


def _alike(left: tf.Tensor, right: tf.Tensor) -> tf.Tensor:
    """[batch, n, m]: which words are the same; "" is like nothing."""
    first, second = _hashed(left), _hashed(right)
    return (first[:, :, None] == second[:, None, :]) & (first[:, :, None] > 0)


def _hashed(found: tf.Tensor) -> tf.Tensor:
    return tf.where(found == "", tf.constant(0, tf.int64), tf.strings.to_hash_bucket_fast(found, _HASHES) + 1)


def _count(codes: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(codes > 0, tf.float32), axis=1)


def _part(some: tf.Tensor, of: tf.Tensor, empty: float = 0.0) -> tf.Tensor:
    return tf.where(of > 0, some / tf.maximum(of, 1e-9), empty)
