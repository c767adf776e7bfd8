"""Canonical rows as the features' graph takes them: the one place where a missing value gets its stand-in.

`ingest` keeps nulls as nulls. A TensorFlow graph has none, so between the two every reader of raw rows (transform, train's
export, evaluate, publish) comes through here: a missing string or image is empty, a missing float is NaN, integers and
timestamps are never missing. Lists are ragged in Arrow, sparse for `preprocessing_fn`, and padded in a request to the
served model; an element that equals the padding ("" / NaN / -1) is therefore no element anywhere.
The story goes on in `steps/transform.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mlpipelines.errors import DataRejected
from mlpipelines.project import ColumnType, Project

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_ELEMENT: dict[str, pa.DataType] = {
    "string": pa.binary(),  # TensorFlow's strings are bytes, and the cast is free
    "bytes": pa.binary(),
    "integer": pa.int64(),
    "timestamp": pa.int64(),
    "float": pa.float32(),
}
_PADDING: dict[str, Any] = {"string": b"", "integer": -1, "float": float("nan")}
_TENSORFLOW: dict[str, str] = {"string": "string", "bytes": "string", "integer": "int64", "timestamp": "int64", "float": "float32"}


def is_list(kind: ColumnType) -> bool:
    """Whether a column of this type holds a list in each row."""
    return kind.startswith("[")


def element(kind: ColumnType) -> str:
    """The type of one value: `string` for `string` and for `[string]`."""
    return kind.strip("[]")


def missing(kind: ColumnType) -> Any:
    """What stands for a missing value, and for the padding of a list: text "", a float NaN, and -1 in a list of integers."""
    return b"" if element(kind) in ("string", "bytes") else _PADDING.get(element(kind), -1)


def tensorflow_dtype(kind: ColumnType) -> str:
    """The name of the TensorFlow dtype in which the graph takes a column of this type."""
    return _TENSORFLOW[element(kind)]


def arrow_schema(project: Project) -> pa.Schema:
    """The columns that `fill_missing` returns: features only, strings as binary, nothing null."""
    return pa.schema([pa.field(name, _arrow_type(kind), nullable=False) for name, kind in project.features.items()])


def fill_missing(project: Project, batch: pa.RecordBatch) -> pa.RecordBatch:
    """The declared features of `batch`, canonical and without nulls; other columns are left out.

    Raises:
        DataRejected: a feature is not there, is of another type, or an integer or timestamp is missing.
    """
    schema = arrow_schema(project)
    columns = [_filled(name, kind, batch, schema.field(name).type) for name, kind in project.features.items()]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def as_asked(project: Project, rows: pa.Table, names: Sequence[str]) -> pa.Table:
    """Some features of rows, alike where the model is asked the same: missing text is empty, and lists have no padding."""
    return pa.table([_alike(rows[name].combine_chunks(), project.features[name]) for name in names], list(names))


def _alike(column: pa.Array, kind: ColumnType) -> pa.Array:
    if is_list(kind):
        return _without_padding(column, _PADDING[element(kind)])
    return pc.fill_null(column, _PADDING["string"]) if kind in ("string", "bytes") else column


def raw_feature_spec(project: Project) -> dict[str, Any]:
    """`tf.io` feature specification of the raw features: FixedLen scalars, VarLen lists. What `preprocessing_fn` is traced with."""
    import tensorflow as tf

    return {
        name: tf.io.VarLenFeature(tensorflow_dtype(kind)) if is_list(kind) else tf.io.FixedLenFeature([], tensorflow_dtype(kind))
        for name, kind in project.features.items()
    }


def serving_signature(project: Project) -> dict[str, Any]:
    """`tf.TensorSpec` of each raw feature in a request: [batch], and [batch, n] for lists."""
    import tensorflow as tf

    return {
        name: tf.TensorSpec([None, None] if is_list(kind) else [None], tensorflow_dtype(kind), name=name)
        for name, kind in project.features.items()
    }


def from_request(project: Project, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Tensors of `serving_signature` as the transform graph takes them: padded lists become sparse, without their padding."""
    return {name: _sparse(inputs[name], element(kind)) if is_list(kind) else inputs[name] for name, kind in project.features.items()}


def to_tensors(project: Project, batch: pa.RecordBatch) -> dict[str, np.ndarray[Any, Any]]:
    """Raw rows as the inputs of a SavedModel with `serving_signature`: arrays [rows], lists padded to [rows, longest].

    Raises:
        DataRejected: as `fill_missing`.
    """
    filled = fill_missing(project, batch)
    return {
        name: _padded(filled[name], _PADDING[element(kind)]) if is_list(kind) else filled[name].to_numpy(zero_copy_only=False)
        for name, kind in project.features.items()
    }


def _arrow_type(kind: ColumnType) -> pa.DataType:
    value = _ELEMENT[element(kind)]
    return pa.list_(value) if is_list(kind) else value


def _filled(name: str, kind: ColumnType, batch: pa.RecordBatch, wanted: pa.DataType) -> pa.Array:
    index = batch.schema.get_field_index(name)
    if index < 0:
        raise DataRejected(
            f"The data has no column {name!r}, which project.yaml declares as a feature. Run `millrace run` again from ingest."
        )
    try:
        column = batch.column(index).cast(wanted)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataRejected(
            f"The column {name!r} holds {batch.schema.field(index).type} where project.yaml declares {kind!r}: {error}. "
            "Correct features in project.yaml, then `millrace run` again."
        ) from error
    if is_list(kind):
        return _without_padding(column, _PADDING[element(kind)])
    if column.null_count == 0:
        return column
    if kind in ("integer", "timestamp"):
        raise DataRejected(
            f"The column {name!r} has {column.null_count} missing values, and {kind!r} features are never missing. "
            "Declare it as 'float' in project.yaml, or fill it at the source, then `millrace run` again."
        )
    return pc.fill_null(column, _PADDING["float" if kind == "float" else "string"])


def _is_padding(values: pa.Array, padding: Any) -> pa.Array:
    if isinstance(padding, float):
        return pc.is_null(values, nan_is_null=True)
    return pc.fill_null(pc.equal(values, pa.scalar(padding, values.type)), fill_value=True)


def _without_padding(column: pa.Array, padding: Any) -> pa.Array:
    """A list column with its null lists emptied and its padding elements dropped, in buffers of its own."""
    values = column.flatten()
    kept = pc.invert(_is_padding(values, padding))
    lengths = np.asarray(pc.fill_null(pc.list_value_length(column), 0), dtype=np.int64)
    kept_until = np.concatenate([[0], np.cumsum(np.asarray(kept, dtype=np.int64))])
    row_ends = np.concatenate([[0], np.cumsum(lengths)])
    return pa.ListArray.from_arrays(pa.array(kept_until[row_ends], pa.int32()), values.filter(kept))


def _padded(column: pa.ListArray, padding: Any) -> np.ndarray[Any, Any]:
    lengths = np.asarray(pc.list_value_length(column), dtype=np.int64)
    values = column.flatten().to_numpy(zero_copy_only=False)
    padded = np.full((len(column), max(1, int(lengths.max(initial=0)))), padding, dtype=values.dtype)
    padded[np.arange(padded.shape[1]) < lengths[:, None]] = values
    return padded


def _sparse(dense: Any, kind: str) -> Any:
    import tensorflow as tf

    kept = ~tf.math.is_nan(dense) if kind == "float" else tf.not_equal(dense, tf.constant(_PADDING[kind], dense.dtype))
    return tf.ragged.boolean_mask(dense, kept).to_sparse()
