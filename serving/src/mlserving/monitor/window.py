"""The prediction log of a window, opened for `survey`: which versions have rows in it, and what each carries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from mlserving import store
from mlserving.errors import Unavailable
from mlserving.monitor.reference import Reference, read_reference
from mlserving.monitor.settings import MonitorSettings
from mlserving.monitor.survey import VersionLog
from mlserving.predictions import reading
from mlserving.predictions.files import Window, listing
from mlserving.predictions.records import EXPLANATION


def version_logs(
    predictions: Path, models: Path, model: str, window: Window, override: MonitorSettings | None = None
) -> tuple[list[VersionLog], list[str]]:
    """Every version with predictions in the window, and notes: which versions' folders are gone, and how many rows were explained.

    Args:
        predictions: the folder of log and labels.
        models: the model store.
        model: the model's name.
        window: of the predictions' time.
        override: settings in the place of those that versions carry.

    Raises:
        ConfigError: a file that a version carries is damaged.
        Unavailable: a file of the log cannot be read.
    """
    logs, notes = [], []
    for version in _versions(predictions, model, window):
        if explained := _explanations(predictions, model, window, version):
            notes.append(
                f"Version {version} explained {explained:,} rows: they are in the log, under {EXPLANATION!r}, and count as no predictions."
            )
        if not reading.log(predictions, model, window, [version]).count():
            continue
        folder = models / model / str(version)
        if not folder.is_dir():
            notes.append(f"Version {version} is no longer in {models / model}: its training statistics and settings went with it.")
        reference = read_reference(folder, override)
        logs.append(_opened(predictions, model, window, version, reference))
    return logs, notes


def _opened(predictions: Path, model: str, window: Window, version: int, reference: Reference) -> VersionLog:
    rows = reading.log(predictions, model, window, [version])

    def batches(columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        wanted = list(dict.fromkeys(["track", *columns]))
        return reading.joined(predictions, model, window, versions=[version], columns=wanted, unlabelled=True)

    return VersionLog(version=version, columns=tuple(rows.schema.names), batches=batches, bare=rows.batches, reference=reference)


def _versions(predictions: Path, model: str, window: Window) -> list[int]:
    """The versions in files of the window's days; 0, which stands for no answer, is none."""
    files = listing(predictions / "log", model, window)
    found = {file.version for file in files if file.version is not None}
    try:
        for file in files:
            if file.version is None:
                found |= {*pc.unique(pq.read_table(file.path, columns=["version"])["version"]).to_pylist()}
    except (OSError, pa.ArrowException) as error:
        raise Unavailable(f"The log of {model} cannot be read: {error}. Type the same command again.") from error
    return sorted(version for version in found if version)


def _explanations(predictions: Path, model: str, window: Window, version: int) -> int:
    """Rows that say why; files without any are not read for it, since Parquet tells what a column's values lie between."""
    return reading.log(predictions, model, window, [version], explanations=True).where(ds.field("signature") == EXPLANATION).count()


def default_folders(workspace: Path) -> tuple[Path, Path]:
    """Predictions and model store of a workspace."""
    return workspace / "predictions", workspace / "models"


def newest_version(models: Path, model: str) -> int | None:
    """The newest version in the store."""
    return max(store.versions(models, model), default=None)
