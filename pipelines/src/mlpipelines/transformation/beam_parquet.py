"""Parquet in and out of the Beam pipeline that `steps/transform.py` builds: the work that is done for each batch of rows.

A file is read by row group, in batches small enough that what TensorFlow makes of them fits in memory, and large enough that
Beam's cost for each does not matter. Every batch has buffers of its own: a slice would be pickled with its whole parent.
TensorFlow Transform's adapter takes lists only, so a scalar travels as a list of one.

What is not a feature travels around the graph as a pass-through column: the row's key, its encoded label, and its place
(file and row), from which the name of the output file follows. So a batch that a cluster works on twice is written twice
under the same name.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx_bsl.tfxio.tensor_adapter import TensorAdapterConfig

from mlpipelines.artifacts import KEY, LABEL
from mlpipelines.errors import DataRejected
from mlpipelines.progress import progress
from mlpipelines.project import Project
from mlpipelines.transformation import label_codes, raw_features

PLACE = "__place"
PASSED_THROUGH = (KEY, LABEL, PLACE)
_ROWS = 1 << 15
_ROWS_WITH_BYTES = 256  # an image becomes many times its size
_BYTES = 64 << 20
_FILE = 1 << 40  # a place is file × _FILE + row


@dataclass(frozen=True, slots=True, kw_only=True)
class RowGroup:
    """One row group of one file."""

    file: str
    index: int
    place: int = 0
    """Of its first row."""
    doing: str = ""
    """What is said when it is read, with `fraction` of the step done by then."""
    fraction: float | None = None


def row_groups(files: Sequence[Path], doing: str, fractions: tuple[float, float]) -> list[RowGroup]:
    """Every row group of `files`; `fractions` is the share of the step that is done before the first and after the last.

    Raises:
        DataRejected: a file is not Parquet, or is cut off.
    """
    groups = []
    for number, file in enumerate(files):
        with _readable(file):
            metadata = pq.read_metadata(file)
        row = 0
        share = fractions[0] + (fractions[1] - fractions[0]) * number / len(files)
        for index in range(metadata.num_row_groups):
            text = f"{doing} {file.parent.name}"
            groups.append(RowGroup(file=str(file), index=index, place=number * _FILE + row, doing=text, fraction=round(share, 3)))
            row += metadata.row_group(index).num_rows
    return groups


def read_column(file: Path, name: str) -> pa.ChunkedArray:
    """One column of a whole file.

    Raises:
        DataRejected: the file is not Parquet, is cut off, or has no such column.
    """
    with _readable(file):
        if name not in pq.read_schema(file).names:
            raise DataRejected(f"{file} has no column {name!r}, which project.yaml names. Correct project.yaml, then `millrace run` again.")
        return pq.read_table(file, columns=[name])[name]


@contextlib.contextmanager
def _readable(file: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowInvalid, OSError) as error:
        raise DataRejected(f"{file} cannot be read as Parquet: {error}. Run `millrace run` again; ingest writes it anew.") from error


def adapter_config(project: Project, *, passed_through: bool) -> TensorAdapterConfig:
    """How TensorFlow Transform turns a batch into tensors: scalars dense [batch], lists sparse."""
    tensors = {name: _representation(name, sparse=raw_features.is_list(kind)) for name, kind in project.features.items()}
    return TensorAdapterConfig(_batch_schema(project, passed_through=passed_through), tensors)


class ReadFeatures(beam.DoFn):  # type: ignore[misc]  # Beam ships no types
    """`RowGroup` → record batches of the declared features, for analysis."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._columns = list(project.features)
        self._schema = _batch_schema(project, passed_through=False)

    def process(self, group: RowGroup) -> Iterator[pa.RecordBatch]:
        """Batches with the schema of `adapter_config`."""
        progress(group.doing, group.fraction)
        with _readable(Path(group.file)), pq.ParquetFile(group.file) as file:
            size = _batch_size(self._project, file.metadata.row_group(group.index))
            row = group.place
            for batch in file.iter_batches(batch_size=size, row_groups=[group.index], columns=self._columns):
                yield from self._converted(batch, row)
                row += batch.num_rows

    def _converted(self, batch: pa.RecordBatch, _place: int) -> Iterator[pa.RecordBatch]:
        yield self._batch(batch, ())

    def _batch(self, batch: pa.RecordBatch, extra: Sequence[pa.Array]) -> pa.RecordBatch:
        columns = [*raw_features.fill_missing(self._project, batch).columns, *extra]
        return pa.RecordBatch.from_arrays([_as_list(column) for column in columns], schema=self._schema)


class ReadRows(ReadFeatures):
    """`RowGroup` → the same with key, encoded label and place; rows whose label the model cannot learn are left out."""

    def __init__(self, project: Project, classes: Sequence[str]) -> None:
        super().__init__(project)
        self._label = label_codes.learned(project)
        self._classes = classes
        self._columns += [KEY] + ([self._label.column] if self._label is not None else [])
        self._schema = _batch_schema(project, passed_through=True)

    def _converted(self, batch: pa.RecordBatch, place: int) -> Iterator[pa.RecordBatch]:
        extra = [batch[KEY].cast(pa.string()), pa.array(np.arange(place, place + batch.num_rows))]
        if self._label is not None:
            label = label_codes.encode(self._label, self._classes, batch[self._label.column])
            extra.append(label)
            if label.null_count:
                batch, extra = batch.filter(label.is_valid()), [column.filter(label.is_valid()) for column in extra]
        if batch.num_rows:
            yield self._batch(batch, extra)


class WriteRows(beam.DoFn):  # type: ignore[misc]  # Beam ships no types
    """Transformed batches → one Parquet file each, below the folder of its input file."""

    def __init__(self, folders: Sequence[str], shapes: dict[str, tuple[int, ...]], label: pa.DataType | None) -> None:
        self._folders = folders
        self._shapes = shapes
        self._label = label

    def process(self, element: tuple[pa.RecordBatch, dict[str, pa.Array]]) -> Iterator[None]:
        """Write the batch under a name that follows from its first row."""
        batch = element[0]
        file, row = divmod(batch[PLACE].flatten()[0].as_py(), _FILE)
        columns: dict[str, pa.Array] = {name: _unlisted(batch[name], shape) for name, shape in self._shapes.items()}
        if self._label is not None:
            columns[LABEL] = batch[LABEL].cast(self._label) if pa.types.is_list(self._label) else batch[LABEL].flatten()
        columns[KEY] = batch[KEY].flatten()
        target = Path(self._folders[file]) / f"part-{file:05d}-{row:09d}.parquet"
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        pq.write_table(pa.table(columns), fresh, compression="lz4")
        fresh.replace(target)
        yield from ()


def _batch_schema(project: Project, *, passed_through: bool) -> pa.Schema:
    columns = {field.name: field.type for field in raw_features.arrow_schema(project)}
    if passed_through:
        columns |= {KEY: pa.string(), PLACE: pa.int64()}
        label = label_codes.learned(project)
        columns |= {LABEL: label_codes.encoded_type(label)} if label is not None else {}
    return pa.schema([(name, _listed(kind)) for name, kind in columns.items()])


def _listed(kind: pa.DataType) -> pa.DataType:
    return kind if pa.types.is_list(kind) else pa.list_(kind)


def _representation(name: str, *, sparse: bool) -> schema_pb2.TensorRepresentation:
    tensor = schema_pb2.TensorRepresentation()
    if sparse:
        tensor.varlen_sparse_tensor.column_name = name
    else:
        tensor.dense_tensor.column_name = name
        tensor.dense_tensor.shape.SetInParent()
    return tensor


def _batch_size(project: Project, group: Any) -> int:
    cap = _ROWS_WITH_BYTES if "bytes" in project.features.values() else _ROWS
    return int(max(1, min(cap, _BYTES * group.num_rows // max(1, group.total_byte_size))))


def _as_list(column: pa.Array) -> pa.Array:
    if pa.types.is_list(column.type):
        return column
    return pa.ListArray.from_arrays(pa.array(np.arange(len(column) + 1, dtype=np.int32)), column)


def _unlisted(column: pa.Array, shape: tuple[int, ...]) -> pa.Array:
    values = column.flatten()
    if pa.types.is_large_binary(values.type):
        values = values.cast(pa.binary())
    return values if shape == () else pa.FixedSizeListArray.from_arrays(values, shape[0])
