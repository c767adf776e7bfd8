"""Asking the model for a batch of rows and getting Arrow back, with the rows that it cannot answer told apart from the others.

A graph answers a whole batch or none of it. Where it refuses, the batch is halved until the rows that it refuses are alone; they are
rejected with what it said, and everybody else gets an answer. What the machine refuses (memory, a broken model) stops the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from mlpipelines.batch.rows import Reasons
from mlpipelines.errors import ConfigError, ModelRejected, Unavailable
from mlpipelines.evaluation.served_model import BATCH, ServedModel
from mlpipelines.project import Project
from mlpipelines.transformation.raw_features import is_list, tensorflow_dtype, to_tensors
from mlserving.client.signature import Signature
from mlserving.server.answer_errors import RequestError
from mlserving.server.arrays import NUMPY, Array

_ROWS_OWN_FAULT = ("INVALID_ARGUMENT", "NOT_FOUND")
REFUSED = "the model refuses the row"
_DTYPES = {"string": "DT_STRING", "int64": "DT_INT64", "float32": "DT_FLOAT"}


def output_types(signature: Signature) -> dict[str, pa.DataType]:
    """The Arrow type of each output: one value a row as a scalar, more of them flattened into a list.

    Raises:
        ModelRejected: an output does not have one entry a row.
    """
    types = {}
    for name, spec in sorted(signature.outputs.items()):
        if spec.shape == ():
            raise ModelRejected(
                f"The output {name!r} of the model has no row dimension, so no row has an answer. Export another model: `millrace run`."
            )
        value = (
            pa.string()
            if spec.dtype == "DT_STRING"
            else pa.float32()
            if spec.dtype == "DT_HALF"
            else pa.from_numpy_dtype(NUMPY[spec.dtype])
        )
        types[name] = value if spec.shape is not None and len(spec.shape) == 1 else pa.list_(value)
    return types


def require_inputs(project: Project, signature: Signature) -> None:
    """Refuse a project whose types are not those that the model was exported with.

    Raises:
        ConfigError: naming the column.
    """
    for name, spec in signature.inputs.items():
        kind = project.features[name]
        rank = 2 if is_list(kind) else 1
        if spec.dtype != _DTYPES[tensorflow_dtype(kind)] or (spec.shape is not None and len(spec.shape) != rank):
            raise ConfigError(
                f"The model takes {spec}, and project.yaml declares {name!r} as {kind!r}. Correct project.yaml, or train a model with its types: `millrace run`."
            )


def ask_rows(
    model: ServedModel, project: Project, rows: pa.RecordBatch, types: Mapping[str, pa.DataType]
) -> tuple[pa.RecordBatch, Reasons]:
    """Ask for every row.

    Args:
        model: the model.
        project: with exactly the model's inputs as features.
        rows: cast rows that nothing is wrong with.
        types: `output_types` of the model.

    Returns:
        The outputs of the rows that were answered, in order; and for each row of `rows` why it was not, or None.

    Raises:
        Unavailable: the machine or the model itself is at fault.
    """
    asking = _Asking(model, project, pa.schema([pa.field(name, kind) for name, kind in types.items()]))
    reasons: Reasons = np.full(rows.num_rows, None, dtype=object)
    for start in range(0, rows.num_rows, BATCH):
        asking.ask(rows.slice(start, BATCH), reasons[start : start + BATCH])
    table = pa.Table.from_batches(asking.answered, schema=asking.schema).combine_chunks()
    (answered,) = table.to_batches() or [pa.RecordBatch.from_pylist([], schema=asking.schema)]
    return answered, reasons


@dataclass(slots=True)
class _Asking:
    """A model that is asked piece by piece."""

    model: ServedModel
    project: Project
    schema: pa.Schema
    answered: list[pa.RecordBatch] = field(default_factory=list)

    def ask(self, rows: pa.RecordBatch, reasons: Reasons) -> None:
        """Keep what is answered, and write into `reasons` (a view on the caller's) what is not."""
        try:
            outputs = self.model.servable.run(self.model.signature, to_tensors(self.project, rows))
        except RequestError as error:
            self._refused(rows, reasons, error)
            return
        for name, values in outputs.items():
            if len(values) != rows.num_rows:
                raise ModelRejected(
                    f"The model answers {len(values)} values of {name!r} for {rows.num_rows} rows. Export another model: `millrace run`."
                )
            _refuse_unusable(name, values, reasons)
        good = np.flatnonzero([reason is None for reason in reasons])
        arrays = [_array(outputs[column.name][good], column.type) for column in self.schema]
        self.answered.append(pa.RecordBatch.from_arrays(arrays, schema=self.schema))

    def _refused(self, rows: pa.RecordBatch, reasons: Reasons, error: RequestError) -> None:
        if error.code not in _ROWS_OWN_FAULT:
            raise Unavailable(
                f"The model in {self.model.folder} cannot answer on this machine: {error} Free some memory, then type the same command again."
            ) from error
        if rows.num_rows == 1:
            reasons[0] = f"{REFUSED}: {error}"
            return
        half = rows.num_rows // 2
        self.ask(rows.slice(0, half), reasons[:half])
        self.ask(rows.slice(half), reasons[half:])


def _refuse_unusable(name: str, values: Array, reasons: Reasons) -> None:
    """Numbers that are none, and text that is none, are no answer."""
    flat = values.reshape(len(values), -1)
    if values.dtype == object:
        bad = np.array([not all(map(_is_text, row)) for row in flat], dtype=np.bool_)
        what = "bytes that are not UTF-8"
    elif np.issubdtype(values.dtype, np.floating):
        bad, what = np.asarray(~np.isfinite(flat).all(axis=1)), "NaN or infinity"
    else:
        return
    for place in np.flatnonzero(bad).tolist():
        reasons[place] = reasons[place] or f"the model answers {name!r} with {what}"


def _is_text(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _array(values: Array, kind: pa.DataType) -> pa.Array:
    if not pa.types.is_list(kind):
        flat = values.reshape(len(values))
        return pa.array(list(flat), pa.binary()).cast(pa.string()) if values.dtype == object else pa.array(flat).cast(kind)
    width = int(np.prod(values.shape[1:], dtype=np.int64))
    offsets = pa.array(np.arange(len(values) + 1, dtype=np.int32) * width, pa.int32())
    return pa.ListArray.from_arrays(offsets, _array(values.reshape(-1), kind.value_type))
