"""What the model learns to say: class names from the training label, and each row's label as the number that stands for it.

The names are those of the training rows, in which `ingest` has folded rare classes into `label.other` already. A class that
only validation or the test set knows is `other` too, where there is such a class; elsewhere the model has no answer for the
row: its label is null, as is the label of a row that came without one.
Pure; `transform` writes the result as `artifacts.LABEL` and `evaluate` judges by the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from mlpipelines.errors import DataRejected
from mlpipelines.project import Label, Project

_TRUE = ("1", "1.0", "true", "yes", "t")
_FALSE = ("0", "0.0", "false", "no", "f")


def learned(project: Project) -> Label | None:
    """The label that the model is trained on; None without one, or where it is only for evaluation."""
    return project.label if project.label is not None and project.label.use == "training" else None


def encoded_type(label: Label) -> pa.DataType:
    """The Arrow type of an encoded label, as `artifacts.LABEL` promises."""
    return {"class": pa.int64(), "flag": pa.int64(), "number": pa.float32(), "classes": pa.list_(pa.int64())}[label.kind]


def class_names(label: Label, columns: Iterable[pa.Array | pa.ChunkedArray]) -> tuple[str, ...]:
    """Class names in the order of their ids, sorted; empty for `flag` and `number`.

    Args:
        label: the project's label.
        columns: the label column of every training file.

    Raises:
        DataRejected: no training row has a label.
    """
    if label.kind not in ("class", "classes"):
        return ()
    names = {name for column in columns for name in pc.unique(_texts(label, column)).to_pylist() if name is not None}
    if not names:
        raise DataRejected(f"No training row has a label in {label.column!r}. Look at the source, then `millrace run` again.")
    return tuple(sorted(names))


def encode(label: Label, classes: Sequence[str], column: pa.Array) -> pa.Array:
    """The label of each row as `encoded_type`, null where it has none (or, for `class`, none that the model knows).

    `classes` keeps the values that are known and drops the others.

    Raises:
        DataRejected: a flag is neither 0 nor 1, or a number is not one.
    """
    if label.kind == "class":
        return _class_ids(label, classes, column)
    if label.kind == "classes":
        return _lists_of_ids(label, classes, column)
    return _flags(label, column) if label.kind == "flag" else _numbers(label, column)


def _texts(label: Label, column: pa.Array | pa.ChunkedArray) -> pa.Array:
    flat = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if label.kind == "classes":
        flat = flat.flatten()
    return flat.cast(pa.string())


def _ids(label: Label, classes: Sequence[str], column: pa.Array) -> pa.Array:
    return pc.index_in(_texts(label, column), value_set=pa.array(classes, pa.string()), skip_nulls=True).cast(pa.int64())


def _class_ids(label: Label, classes: Sequence[str], column: pa.Array) -> pa.Array:
    ids = _ids(label, classes, column)
    if label.other not in classes:
        return ids
    known_or_other = pc.fill_null(ids, list(classes).index(label.other))
    return pc.if_else(pc.is_valid(column), known_or_other, pa.scalar(None, pa.int64()))


def _lists_of_ids(label: Label, classes: Sequence[str], column: pa.ListArray) -> pa.Array:
    ids = _ids(label, classes, column)
    known = pc.is_valid(ids).to_numpy(zero_copy_only=False)
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    known_before = [0, *known.cumsum().tolist()]
    ends = [0, *lengths.cumsum().tolist()]
    offsets = pa.array([known_before[end] for end in ends], pa.int32())
    return pa.ListArray.from_arrays(offsets, ids.drop_null(), mask=pc.is_null(column))


def _flags(label: Label, column: pa.Array) -> pa.Array:
    texts = column.cast(pa.string())
    if label.positive is not None:
        return pc.equal(texts, label.positive).cast(pa.int64())
    lowered = pc.utf8_lower(texts)
    unknown = [value for value in pc.unique(lowered).to_pylist() if value is not None and value not in (*_TRUE, *_FALSE)]
    if unknown:
        raise DataRejected(
            f"The flag {label.column!r} holds {unknown[0]!r}, which is neither 0 nor 1. "
            "Say which value counts as 1 with label.positive in project.yaml, then `millrace run` again."
        )
    positive = pc.is_in(lowered, value_set=pa.array(_TRUE))
    return pc.if_else(pc.is_valid(lowered), positive.cast(pa.int64()), pa.scalar(None, pa.int64()))


def _numbers(label: Label, column: pa.Array) -> pa.Array:
    try:
        numbers = column.cast(pa.float32())
    except pa.ArrowInvalid as error:
        raise DataRejected(
            f"The label {label.column!r} is not a number: {error}. Correct label.kind, then `millrace run` again."
        ) from error
    return pc.if_else(pc.is_nan(numbers), pa.scalar(None, pa.float32()), numbers)
