"""The share of a batch that is logged, in the gateway's own form, so that monitor and review see batch predictions beside online ones.

The same hash of the prediction id decides what is kept, the same settings say which features and which outputs mean what
(`mlserving.predictions.records` has the columns). A batch row is `track="stable"`, `protocol="batch"`, and has no latency of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ValidationError

from mlpipelines.batch.columns import Columns
from mlpipelines.errors import ConfigError
from mlpipelines.ingestion.canonical import ARROW_TYPES
from mlpipelines.project import ColumnType, Project
from mlpipelines.transformation.raw_features import fill_missing
from mlserving.client.ask import DEFAULT_SIGNATURE
from mlserving.gateway.routing import unit
from mlserving.gateway.settings import Log, Track
from mlserving.predictions.records import FEATURE, MOST_VALUE_BYTES, OUTPUT, PREDICTION_FIELDS, TIME, text_of

if TYPE_CHECKING:
    from mlpipelines.batch.scoring import Job

PROTOCOL = "batch"


def log_settings(project: Project, *, share: float | None, features: Sequence[str]) -> Log:
    """What is logged: `deployment.log` of project.yaml where it has one, with what the command line says laid over it.

    Raises:
        ConfigError: the share is none, or a feature is not the model's.
    """
    stated = getattr(project.deployment, "log", None)
    values: dict[str, Any] = stated.model_dump() if stated is not None else {}
    values |= {"share": share} if share is not None else {}
    values |= {"features": tuple(features)} if features else {}
    try:
        log = Log.model_validate({name: value for name, value in values.items() if name in Log.model_fields})
    except ValidationError as error:
        raise ConfigError(f"--log-share {share}: {error.errors()[0]['msg']}. Type a share from 0 to 1.") from error
    unknown = [name for name in log.features if name not in project.features]
    if unknown:
        raise ConfigError(f"--log-feature {unknown[0]}: project.yaml has no such feature, only {', '.join(project.features)}.")
    return log


def log_schema(log: Log, columns: Columns, outputs: Mapping[str, pa.DataType]) -> pa.Schema:
    """The log's columns for this file. A feature that the pinned model does not take is not there."""
    features = [pa.field(FEATURE + name, _logged_type(columns.types[name])) for name in log.features if name in columns.project.features]
    return pa.schema([*PREDICTION_FIELDS, *features, *(pa.field(OUTPUT + name, kind) for name, kind in outputs.items())])


def logged_rows(job: Job, schema: pa.Schema, ids: Sequence[str], rows: pa.RecordBatch, answered: pa.RecordBatch) -> pa.RecordBatch:
    """The rows that the log keeps, of those that were scored. Features are what the model was asked, as the gateway logs them: a null would say "not kept"."""
    share = job.log.share
    chosen = [place for place, each in enumerate(ids) if share >= 1 or unit("log", each) < share] if share > 0 else []
    places = pa.array(np.array(chosen, dtype=np.int64))
    rows, answered, count = rows.take(places), answered.take(places), len(chosen)
    fixed: dict[str, Any] = {
        "row": pa.scalar(0, pa.int32()),
        "time": pa.scalar(job.started_us, TIME),
        "model": job.pinned.model,
        "version": pa.scalar(job.pinned.version, pa.int64()),
        "track": str(Track.STABLE),
        "protocol": PROTOCOL,
        "signature": DEFAULT_SIGNATURE,
        "latency_ms": pa.scalar(0.0, pa.float32()),
    }
    found = {name: pa.repeat(value, count) for name, value in fixed.items()}
    found |= {
        "prediction_id": pa.array([ids[place] for place in chosen], pa.string()),
        "label": _spoken(answered, job.log.outputs.label, pa.string()),
        "confidence": _spoken(answered, job.log.outputs.confidence, pa.float32()),
    }
    kept = {name: kind for name, kind in job.project.features.items() if FEATURE + name in schema.names}
    asked = fill_missing(job.project.model_copy(update={"features": kept}), rows)
    found |= {FEATURE + name: _as_logged(asked.column(name), kept[name]) for name in kept}
    found |= {OUTPUT + name: answered.column(name) for name in answered.schema.names}
    return pa.RecordBatch.from_arrays([found[field.name] for field in schema], schema=schema)


def _logged_type(kind: ColumnType) -> pa.DataType:
    return pa.string() if kind == "bytes" else ARROW_TYPES[kind]


def _as_logged(values: pa.Array, kind: ColumnType) -> pa.Array:
    """A feature as the gateway writes it: an image or a long text that is too large is left out, and bytes become text."""
    if kind not in ("string", "bytes"):
        return values.cast(ARROW_TYPES[kind])
    fitting = pc.if_else(pc.less_equal(pc.binary_length(values), MOST_VALUE_BYTES), values, pa.scalar(None, values.type))
    if kind == "string":
        return fitting.cast(pa.string())
    return pa.array([None if each is None else text_of(each) for each in fitting.to_pylist()], pa.string())


def _spoken(answered: pa.RecordBatch, name: str, kind: pa.DataType) -> pa.Array:
    """The output that says what the model thinks, or how sure it is; null where it has none such."""
    found = answered.schema.field(name).type if name in answered.schema.names else None
    if found is None or pa.types.is_list(found) or (pa.types.is_floating(kind) and not pa.types.is_floating(found)):
        return pa.nulls(answered.num_rows, kind)
    return answered.column(name).cast(kind)
