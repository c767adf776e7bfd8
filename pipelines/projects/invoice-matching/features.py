"""From a pair, a transfer and an invoice that it may pay, to numbers that say what speaks for it: one TensorFlow graph.

Story: `transform` runs this over all candidate pairs, and the same graph is part of the served model. Texts are compared here from what the
bank and the ledger say, letter by letter, so that nothing has to be prepared elsewhere and no two preparations can disagree. `CLUES` names
the columns of the result; `model.py` weighs them.
"""

from __future__ import annotations

import comparing
import tensorflow as tf
import tensorflow_transform as tft

DAY_SECONDS = 86_400.0
CLUES = (
    "number is a word of the reference",
    "serial is a word of the reference",
    "serial is the longest number's end",
    "errors in the number",
    "errors in the serial",
    "digits of the serial",
    "numbers in the reference",
    "name: runs of letters",
    "name: letters apart",
    "name: words of the payer",
    "name: words of the customer",
    "name in the reference",
    "amount: logarithm of the ratio",
    "amount: how far apart",
    "amount: exactly",
    "amount: less a fee",
    "amount: less a discount",
    "amount: a simple part",
    "amount: more than open",
    "several invoices: how far apart",
    "several invoices: exactly",
    "several transfers: how far apart",
    "several transfers: exactly",
    "other invoices of this amount",
    "currency is the invoice's",
    "days since issue",
    "days since due",
    "size",
)
"""What each column of `clues` says."""
_PARTS = (0.25, 0.3, 1 / 3, 0.4, 0.5, 0.6, 2 / 3, 0.7, 0.75)
_FEE = 30.0
_WORDS, _NAME, _REFERENCE = 8, 32, 96


def preprocessing_fn(inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """See `mlpipelines.project_code` for the contract. `clues` is [batch, len(CLUES)]."""
    columns = [*_reference(inputs), *_name(inputs), *_amount(inputs), *_sums(inputs), *_rest(inputs)]
    assert len(columns) == len(CLUES)
    return {"clues": tf.stack([tft.scale_to_z_score(tf.cast(column, tf.float32)) for column in columns], axis=1)}


def _reference(inputs: dict[str, tf.Tensor]) -> list[tf.Tensor]:
    """Whether the invoice's number stands in the reference, and how nearly."""
    runs = comparing.digit_runs(inputs["reference"])
    told = comparing.words(runs, 12)
    number = tf.strings.regex_replace(inputs["number"], r"[^0-9]+", "")
    serial = tf.strings.regex_replace(inputs["number"], r"^(.*[^0-9])?0*([0-9]+)$", r"\2")
    glued = tf.strings.regex_replace(inputs["reference"], r"[^0-9]+", "")
    length = tf.cast(tf.strings.length(serial), tf.float32)
    off = comparing.distance_within(number, glued, longest=16, length=_REFERENCE)
    off_serial = comparing.distance_within(serial, runs, longest=10, length=_REFERENCE)
    return [
        comparing.has_word(number[:, None], told),
        comparing.has_word(serial[:, None], told),
        _flag(off < 0.5),
        tf.minimum(off, 5.0),
        tf.minimum(off_serial, 4.0),
        length,
        tf.math.log1p(tf.reduce_sum(_flag(told != ""), axis=1)),
    ]


def _name(inputs: dict[str, tf.Tensor]) -> list[tf.Tensor]:
    """Whether the payer is the customer, and whether the reference names them."""
    payer, customer, reference = (comparing.cleaned(inputs[name]) for name in ("payer", "customer", "reference"))
    worth = comparing.rarity([payer, customer], "words_of_names", _WORDS)
    of_payer, of_customer, _ = comparing.shared_worth(comparing.words(payer, _WORDS), comparing.words(customer, _WORDS), worth)
    first_word = tf.strings.regex_replace(customer, r"^([^ ]+).*$", r"\1")
    within = comparing.distance_within(first_word, reference, longest=12, length=_REFERENCE)
    return [
        comparing.grams(payer, customer, length=_NAME),
        comparing.distance(payer, customer, length=_NAME),
        of_payer,
        of_customer,
        _flag(within < 1.5) * _flag(tf.strings.length(first_word) > 3),
    ]


def _amount(inputs: dict[str, tf.Tensor]) -> list[tf.Tensor]:
    """How what arrived compares with what is open."""
    paid, owed = _present(inputs["paid"]), _present(inputs["open"])
    ratio = paid / tf.maximum(owed, 0.01)
    apart = tf.abs(paid - owed)
    part = tf.reduce_min(tf.abs(ratio[:, None] - tf.constant(_PARTS)[None, :]), axis=1)
    return [
        tf.clip_by_value(tf.math.log(tf.maximum(ratio, 1e-4)), -4.0, 4.0),
        _nearness(apart / tf.maximum(owed, 0.01)),
        _flag(apart < 0.006),
        _flag((owed - paid > 0.006) & (owed - paid < _FEE)),
        _flag(tf.abs(ratio - 0.98) < 0.0006),
        _flag(part < 0.0006),
        _flag(ratio > 1.03),
    ]


def _sums(inputs: dict[str, tf.Tensor]) -> list[tf.Tensor]:
    together, in_parts = (_gap(inputs[name]) for name in ("together", "in_parts"))
    return [_nearness(together), _flag(together < 0.0002), _nearness(in_parts), _flag(in_parts < 0.0002)]


def _rest(inputs: dict[str, tf.Tensor]) -> list[tf.Tensor]:
    booked, issued, due = (tf.cast(inputs[name], tf.float32) / DAY_SECONDS for name in ("booked_at", "issued_at", "due_at"))
    return [
        tf.math.log1p(tf.cast(inputs["rivals"], tf.float32)),
        _flag(inputs["currency"] == inputs["invoice_currency"]),
        tf.clip_by_value(booked - issued, -10.0, 200.0),
        tf.clip_by_value(booked - due, -70.0, 150.0),
        tf.math.log(tf.maximum(_present(inputs["open"]), 1.0)),
    ]


def _nearness(gap: tf.Tensor) -> tf.Tensor:
    """A gap on a logarithmic scale, from 0 (ten thousandths and less) to 1 (as large as the thing itself, and more)."""
    return tf.clip_by_value(tf.math.log(gap * 1e4 + 1.0) / tf.math.log(1e4), 0.0, 1.0)


def _gap(values: tf.Tensor) -> tf.Tensor:
    """Where there is no sum, the gap is as large as can be."""
    return tf.where(tf.math.is_nan(values), 9.0, values)


def _present(values: tf.Tensor) -> tf.Tensor:
    return tf.where(tf.math.is_nan(values), tf.zeros_like(values), values)


def _flag(condition: tf.Tensor) -> tf.Tensor:
    return tf.cast(condition, tf.float32)
