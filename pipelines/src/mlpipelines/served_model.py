"""A model as servers see it: a SavedModel folder, asked through its serving signature on raw rows.

The one adapter to TensorFlow for the steps that judge and publish. Whatever `evaluate` says of a model it says of this
folder, not of something that training kept in memory. The signature's names are in `project_code.py`'s contract.
"""

from __future__ import annotations

import hashlib
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mlpipelines.errors import ConfigError
from mlpipelines.project import ColumnType, Project
from mlpipelines.raw_features import to_tensors

SIGNATURE = "serving_default"
EXTRA = "assets.extra"
"""Files beside the model that servers read and the graph does not."""
BATCH = 2048
_WARM_UP_CALLS = 10
_MEGABYTE = 1_000_000

Progress = Callable[[float], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """A loaded SavedModel."""

    folder: Path
    classes: tuple[str, ...]
    """What the columns of `scores` stand for; empty without classes."""
    inputs: tuple[str, ...]
    """The raw features that the signature takes."""
    outputs: tuple[str, ...]
    signature: Any
    """The concrete function."""
    loaded: Any
    """Keeps the variables alive that the signature reads."""


def load_model(folder: Path) -> ServedModel:
    """Load the SavedModel in `folder`.

    Raises:
        ConfigError: it is not one, it does not load, or it has no signature `serving_default`.
    """
    import tensorflow as tf

    try:
        loaded = tf.saved_model.load(str(folder))
    except (OSError, ValueError, tf.errors.OpError) as error:
        raise ConfigError(
            f"The SavedModel in {folder} does not load: {error}. Train and export it again: `millrace run --no-cache`."
        ) from error
    if SIGNATURE not in loaded.signatures:
        raise ConfigError(f"The SavedModel in {folder} has no signature {SIGNATURE!r}. Export it again: `millrace run --no-cache`.")
    signature = loaded.signatures[SIGNATURE]
    return ServedModel(
        folder=folder,
        classes=_classes(folder),
        inputs=tuple(sorted(signature.structured_input_signature[1])),
        outputs=tuple(sorted(signature.structured_outputs)),
        signature=signature,
        loaded=loaded,
    )


def answer_rows(
    model: ServedModel, project: Project, rows: pa.Table, *, progress: Progress = lambda _: None
) -> dict[str, npt.NDArray[Any]]:
    """What the model answers for raw rows, asked in batches.

    Args:
        model: the model.
        project: whose features the columns are.
        rows: raw rows, as in the sealed test set.
        progress: called with the share that is done.

    Returns:
        Each output with one entry a row; strings as objects of bytes.

    Raises:
        ConfigError: the model takes a feature that the rows do not have.
    """
    readable = project_for(model, project, rows)
    parts: list[dict[str, npt.NDArray[Any]]] = []
    for start in range(0, len(rows), BATCH):
        (batch,) = rows.slice(start, BATCH).combine_chunks().to_batches() or [None]
        parts.append(_ask(model, to_tensors(readable, batch)))
        progress(min(1.0, (start + BATCH) / len(rows)))
    return {name: np.concatenate([part[name] for part in parts]) for name in model.outputs} if parts else {}


def project_for(model: ServedModel, project: Project, rows: pa.Table) -> Project:
    """The project with exactly the model's inputs as features: a champion may read a column that is no feature any more.

    Raises:
        ConfigError: the rows do not have such a column.
    """
    features: dict[str, ColumnType] = {}
    for name in model.inputs:
        kind = project.column_types.get(name) or (_kind_of(rows.schema.field(name).type) if name in rows.column_names else None)
        if kind is None:
            raise ConfigError(
                f"The model in {model.folder} reads the column {name!r}, which neither project.yaml nor the rows have. "
                "Put it back in project.yaml (under `context` if it is no feature any more) and run `millrace run` again."
            )
        features[name] = kind
    return project.model_copy(update={"features": features})


def median_latency(model: ServedModel, project: Project, rows: pa.Table, *, calls: int = 100) -> float:
    """Median milliseconds of a single-row prediction in this process, over `calls` rows, after warming up."""
    import tensorflow as tf

    readable = project_for(model, project, rows)
    requests = []
    for place in range(min(calls, len(rows))):
        (batch,) = rows.slice(place, 1).combine_chunks().to_batches()
        requests.append({name: tf.constant(value) for name, value in to_tensors(readable, batch).items()})
    for request in requests[:_WARM_UP_CALLS]:
        model.signature(**request)
    return statistics.median(_milliseconds(model, requests[i % len(requests)]) for i in range(calls))


def size_mb(folder: Path) -> float:
    """Megabytes (10^6 bytes) of all files below `folder`."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / _MEGABYTE


def fingerprint(folder: Path) -> str:
    """SHA-256 over the names and contents of the model's files; `assets.extra` is not part of the model."""
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = file.relative_to(folder)
        if name.parts[0] == EXTRA:
            continue
        with file.open("rb") as stream:
            digest.update(str(name).encode() + b"\0" + hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def _ask(model: ServedModel, inputs: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    import tensorflow as tf

    answers = model.signature(**{name: tf.constant(inputs[name]) for name in model.inputs})
    return {name: np.asarray(answers[name].numpy()) for name in model.outputs}


def _milliseconds(model: ServedModel, request: dict[str, Any]) -> float:
    started = time.perf_counter()
    answers = model.signature(**request)
    for name in model.outputs:
        answers[name].numpy()
    return (time.perf_counter() - started) * 1000


def _classes(folder: Path) -> tuple[str, ...]:
    file = folder / "assets" / "classes.txt"
    return tuple(file.read_text(encoding="utf-8").splitlines()) if file.is_file() else ()


def _kind_of(arrow: pa.DataType) -> ColumnType | None:
    """The column type that an Arrow type on disk stands for."""
    kinds: dict[pa.DataType, ColumnType] = {
        pa.string(): "string",
        pa.int64(): "integer",
        pa.float32(): "float",
        pa.binary(): "bytes",
        pa.list_(pa.string()): "[string]",
        pa.list_(pa.int64()): "[integer]",
        pa.list_(pa.float32()): "[float]",
    }
    return kinds.get(arrow)
