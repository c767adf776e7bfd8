"""What may stand in the label column, before anything is learned from it. Pure: Arrow in, Arrow out.

A label is missing when it is null or empty text. A `flag` is normalised to 0 and 1, unless `positive` names the value that
counts as 1: then the values stay as they are. Rare classes are folded into `other` by the first run's training rows, and
alike in every split and every later run, so that the sealed test set keeps its meaning.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mlpipelines.errors import ConfigError, DataRejected
from mlpipelines.project import Label

MOST_MISSING = 0.05
"""A larger share of rows without label is an accident at the source, not noise."""
_FLAGS = {"1": "1", "1.0": "1", "true": "1", "t": "1", "yes": "1", "0": "0", "0.0": "0", "false": "0", "f": "0", "no": "0"}
_SHOWN = 20


def missing_labels(values: pa.Array) -> npt.NDArray[np.bool_]:
    """Rows without a label."""
    missing = pc.is_null(values)
    if pa.types.is_string(values.type):
        missing = pc.or_(missing, pc.fill_null(pc.equal(values, ""), fill_value=False))
    return np.asarray(missing)


def require_labels(missing: npt.NDArray[np.bool_], label: Label) -> None:
    """Refuse rows of which too many have no label.

    Raises:
        DataRejected: all of them, or more than `MOST_MISSING` of what is trained on.
    """
    count, rows = int(missing.sum()), len(missing)
    if count == rows or (label.use == "training" and count > MOST_MISSING * rows):
        raise DataRejected(
            f"The label {label.column!r} is missing in {count:,} of {rows:,} rows ({count / rows:.1%}); at most {MOST_MISSING:.0%} are dropped "
            "without asking. Correct the source, or leave rows without a label out of source.query.",
            report=[{"column": label.column, "rule": f"missing ≤ {MOST_MISSING:.0%}", "share": count / rows, "example": None}],
        )


def canonical_flags(values: pa.Array, label: Label) -> pa.Array:
    """A flag's values as `0` and `1` of their own type; untouched where `positive` says which is which.

    Raises:
        DataRejected: a value that is neither, with examples.
    """
    if label.positive is not None:
        return values
    if not pa.types.is_string(values.type):
        _refuse_values(values.filter(pc.invert(pc.is_in(values, value_set=pa.array([0, 1, None], values.type)))), label)
        return values
    known = known_flags(values)
    unknown = values.filter(pc.and_(pc.is_null(known), pc.is_valid(values))).unique()
    _refuse_values(unknown.filter(pc.not_equal(unknown, "")), label)
    return known


def known_flags(values: pa.Array) -> pa.Array:
    """Text as `0` or `1`; null where it is neither."""
    encoded = values.dictionary_encode()
    return pa.array([_FLAGS.get(value.strip().lower()) for value in encoded.dictionary.to_pylist()], pa.string()).take(encoded.indices)


def _refuse_values(wrong: pa.Array, label: Label) -> None:
    if not len(wrong):
        return
    examples = wrong.unique()[:3].to_pylist()
    raise DataRejected(
        f"The label {label.column!r} is a flag and holds {', '.join(map(repr, examples))}, which are neither 0 nor 1. Name the value that "
        "counts as 1 in label.positive of project.yaml, or use label.kind: class.",
        report=[{"column": label.column, "rule": "0 or 1", "example": example} for example in examples],
    )


def class_counts(values: pa.ChunkedArray | pa.Array, label: Label) -> dict[str, int]:
    """Rows of each label value, most frequent first; empty for numbers."""
    if label.kind == "number":
        return {}
    counts = pc.value_counts(pc.list_flatten(values) if label.kind == "classes" else values).to_pylist()
    found = {str(item["values"]): int(item["counts"]) for item in counts if item["values"] is not None}
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def classes_kept(counts: Mapping[str, int], label: Label) -> list[str] | None:
    """The classes of the first run's training rows that are not folded, or None where nothing is folded."""
    if label.kind != "class" or label.min_rows <= 1:
        return None
    return sorted(name for name, rows in counts.items() if rows >= label.min_rows)


def folded(values: pa.Array, kept: Collection[str], label: Label) -> pa.Array:
    """`values` with every class outside `kept` as `label.other`.

    Raises:
        ConfigError: the label is not text, so that `other` has no place in it.
    """
    if not pa.types.is_string(values.type):
        raise ConfigError(f"label.min_rows in project.yaml folds classes of text only; declare {label.column!r} as string and run again.")
    keep = pc.or_(pc.is_in(values, value_set=pa.array(kept, pa.string())), pc.is_null(values))
    return pc.if_else(keep, values, label.other)


def require_classes(counts: Mapping[str, int], label: Label) -> None:
    """Refuse training rows that hold nothing to tell apart.

    Raises:
        DataRejected: one class only, or a `positive` that no row has.
    """
    if label.use != "training" or label.kind not in ("class", "flag"):
        return
    if label.kind == "flag" and label.positive is not None and (label.positive not in counts or len(counts) == 1):
        shown = ", ".join(map(repr, list(counts)[:_SHOWN]))
        raise DataRejected(
            f"The label {label.column!r} has to be {label.positive!r} (label.positive) in some training rows and not in others; it is: {shown}. "
            "Correct label.positive in project.yaml, or the source.",
            report=[{"column": label.column, "rule": "both values of a flag", "example": shown}],
        )
    if len(counts) < 2:  # noqa: PLR2004 - one class leaves nothing to learn
        only = next(iter(counts), None)
        raise DataRejected(
            f"All training rows have the label {only!r} in {label.column!r}: with one class there is nothing to learn. Widen the window or correct "
            "the source.",
            report=[{"column": label.column, "rule": "at least two classes", "example": only}],
        )


def with_column(rows: pa.Table, name: str, values: pa.Array) -> pa.Table:
    """`rows` with other values in one column."""
    place = rows.schema.get_field_index(name)
    return rows.set_column(place, rows.schema.field(place), values)
