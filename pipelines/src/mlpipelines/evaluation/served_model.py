"""A model as servers see it: a SavedModel folder, asked through its serving signature on raw rows.

The one way in which the steps that judge and publish call an exported model, and it is the server's own: `mlserving` restores
the graph in a session, as TensorFlow Serving does. `tf.saved_model.load` would not do, because it restores Keras 3 variables
by Python objects even where the SavedModel has no operation to restore them (keras-team/keras#20095): such a model passes
every check and then cannot be served. The signature's names are in `project_code.py`'s contract.
"""

from __future__ import annotations

import contextlib
import hashlib
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mlpipelines.errors import ConfigError, ModelRejected
from mlpipelines.project import ColumnType, Project
from mlpipelines.transformation.raw_features import to_tensors
from mlserving.client.ask import DEFAULT_SIGNATURE
from mlserving.client.signature import Signature
from mlserving.errors import Unavailable as NotLoaded
from mlserving.server.answer_errors import RequestError
from mlserving.store import EXTRA

if TYPE_CHECKING:
    from mlserving.server.servable import Servable

BATCH = 2048
BATCH_WITH_BYTES = 256
"""Rows that hold images or the like: inside the graph each becomes many times its size."""
_WARM_UP_CALLS = 10
_MEGABYTE = 1_000_000

Progress = Callable[[float], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """A loaded SavedModel."""

    folder: Path
    classes: tuple[str, ...]
    """What the columns of `scores` stand for; empty without classes."""
    signature: Signature
    """Its inputs are the raw features that the model takes."""
    servable: Servable

    def ask(self, inputs: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Run the graph once: each input an array [rows] or [rows, n], each output one [rows, …], strings as objects of bytes.

        Raises:
            ModelRejected: the graph cannot answer; a server could not have it answer either.
        """
        try:
            return self.servable.run(self.signature, inputs)
        except RequestError as error:
            raise ModelRejected(
                f"The exported model in {self.folder} cannot be served: {error} Correct model.py or features.py, then `millrace run` again."
            ) from error


@contextlib.contextmanager
def load_model(folder: Path) -> Iterator[ServedModel]:
    """The SavedModel in `folder`, in memory for as long as the context lasts.

    Raises:
        ConfigError: it is not one, it does not load, or it has no signature `serving_default`.
    """
    from mlserving.server.servable import Servable

    try:
        servable = Servable(str(folder), 0, folder)  # no version yet
    except NotLoaded as error:
        raise ConfigError(f"{error} Train and export it again: `millrace run --no-cache`.") from error
    try:
        if DEFAULT_SIGNATURE not in servable.signatures:
            raise ConfigError(
                f"The SavedModel in {folder} has no signature {DEFAULT_SIGNATURE!r}. Export it again: `millrace run --no-cache`."
            )
        yield ServedModel(folder=folder, classes=_classes(folder), signature=servable.signatures[DEFAULT_SIGNATURE], servable=servable)
    finally:
        servable.close()


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
        ModelRejected: the model cannot answer.
    """
    readable = project_for(model, project, rows)
    parts: list[dict[str, npt.NDArray[Any]]] = []
    size = BATCH_WITH_BYTES if "bytes" in readable.features.values() else BATCH
    for start in range(0, len(rows), size):
        (batch,) = rows.slice(start, size).combine_chunks().to_batches() or [None]
        parts.append(model.ask(to_tensors(readable, batch)))
        progress(min(1.0, (start + size) / len(rows)))
    return {name: np.concatenate([part[name] for part in parts]) for name in model.signature.outputs} if parts else {}


def project_for(model: ServedModel, project: Project, rows: pa.Table) -> Project:
    """The project with exactly the model's inputs as features: a champion may read a column that is no feature any more.

    Raises:
        ConfigError: the rows do not have such a column.
    """
    features: dict[str, ColumnType] = {}
    for name in model.signature.inputs:
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
    readable = project_for(model, project, rows)
    requests = []
    for place in range(min(calls, len(rows))):
        (batch,) = rows.slice(place, 1).combine_chunks().to_batches()
        requests.append(to_tensors(readable, batch))
    for request in requests[:_WARM_UP_CALLS]:
        model.ask(request)
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


def _milliseconds(model: ServedModel, request: dict[str, npt.NDArray[Any]]) -> float:
    started = time.perf_counter()
    model.ask(request)
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
