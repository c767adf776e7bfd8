"""Describe every column of every split with TensorFlow Data Validation, straight from Parquet.

TFDV's generators are fed record batch by record batch, in this process: on a million rows that takes a third of what its
Beam pipeline takes, and memory stays at one batch and the sketches. Each split gets statistics of its own, and their
accumulators are merged into those of the whole, so no row is read twice. The next step, `validate`, judges them.

Importing TFDV brings TensorFlow and Beam in; nothing else here costs more than milliseconds.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mlpipelines.artifacts import KEY, Data, SplitName, Statistics
from mlpipelines.errors import DataRejected
from mlpipelines.progress import note, progress
from mlpipelines.project import Project
from mlpipelines.validation.columns import read_snapshot
from mlpipelines.validation.piles import Piles
from mlpipelines.validation.statistics_page import statistics_page
from mlserving.statistics.columns import RANKED_VALUES
from mlserving.workspace import write_whole

BATCH_ROWS = 131_072
_SPLITS: tuple[SplitName, ...] = ("train", "validation")
_QUANTILES = 40
"""TFDV computes a hundred times as many to draw its other histogram, in Python: more would cost more than reading the rows."""
_RANK_ERROR = 0.001
"""How far a quantile may be off, as a share of the rows: drift compares buckets that hold a twentieth of them."""
_TABLED_VALUES = 20

Accumulators = list[Any]
"""One for each of TFDV's generators."""


def compute_statistics(*, project: Project, data: Path, statistics: Path, page: Path) -> None:
    """Write statistics of the training split, of the validation split and of both together, and a page to read.

    Args:
        project: its columns name the types on the page.
        data: a `Data` artifact.
        statistics: the `Statistics` artifact to write.
        page: the HTML file to write.

    Raises:
        DataRejected: a file of `data` is not the Parquet that `ingest` writes.
    """
    progress("importing TensorFlow Data Validation")
    generators = _generators()
    read = [_read_split(data, split, generators) for split in _SPLITS]
    split_accumulators, piles = [accumulators for accumulators, _ in read], [values for _, values in read]
    merged = _merge(generators, split_accumulators)
    target = Statistics(statistics)
    paths = (target.whole, *(target.of(split) for split in _SPLITS))
    for path, accumulators, values in zip(paths, (merged, *split_accumulators), (piles[0] + piles[1], *piles), strict=True):
        write_whole(path, _extract(generators, accumulators, values, path.stem).SerializeToString(deterministic=True))
    snapshot = read_snapshot(statistics)
    write_whole(page, statistics_page(project, snapshot))
    note(
        summary=f"{len(snapshot.whole)} columns",
        columns=len(snapshot.whole),
        **{f"{split}_rows": rows for split, rows in snapshot.rows.items()},
    )


def describe(rows: Iterable[pa.RecordBatch], name: str) -> Any:
    """Statistics of any rows, by the same generators: a `DatasetFeatureStatisticsList` of one data set, called `name`."""
    generators, piles = _generators(), Piles()
    accumulators = [generator.create_accumulator() for generator in generators]
    for batch in rows:
        accumulators = _added(generators, accumulators, piles, batch)
    return _extract(generators, accumulators, piles, name)


def _added(generators: Sequence[Any], accumulators: Accumulators, piles: Piles, batch: pa.RecordBatch) -> Accumulators:
    described = _as_lists(batch)
    piles.add(described)
    return [generator.add_input(accumulator, described) for generator, accumulator in zip(generators, accumulators, strict=True)]


def _generators() -> Sequence[Any]:
    from tensorflow_data_validation import StatsOptions
    from tensorflow_data_validation.statistics import stats_impl

    options = StatsOptions(
        num_top_values=_TABLED_VALUES,
        num_rank_histogram_buckets=RANKED_VALUES,
        num_quantiles_histogram_buckets=_QUANTILES,
        epsilon=_RANK_ERROR,
    )
    generators: Sequence[Any] = stats_impl.get_generators(options, in_memory=True)
    return generators


def _read_split(data: Path, split: SplitName, generators: Sequence[Any]) -> tuple[Accumulators, Piles]:
    piles = Piles()
    accumulators = [generator.create_accumulator() for generator in generators]
    folder = data / split
    files = Data(data).source_files(split) if folder.is_dir() else []
    for done, file in enumerate(files):
        progress(f"describing {split} rows, {file.parent.name}", done / len(files))
        for batch in _batches(file):
            accumulators = _added(generators, accumulators, piles, batch)
    return accumulators, piles


def _batches(file: Path) -> Iterator[pa.RecordBatch]:
    try:
        with pq.ParquetFile(file) as parquet:
            yield from parquet.iter_batches(batch_size=BATCH_ROWS, columns=[name for name in parquet.schema_arrow.names if name != KEY])
    except (pa.ArrowException, OSError) as error:
        raise DataRejected(f"{file} cannot be read as Parquet: {error}. `millrace run PROJECT_DIR` reads the source again.") from error


def _merge(generators: Sequence[Any], splits: Sequence[Accumulators]) -> Accumulators:
    """Accumulators of all splits together. They are copied first: extracting finishes the sketches of an accumulator for good."""
    copies = pickle.loads(pickle.dumps(splits))  # noqa: S301 our own objects, just made
    return [generator.merge_accumulators(parts) for generator, parts in zip(generators, zip(*copies, strict=True), strict=True)]


def _extract(generators: Sequence[Any], accumulators: Accumulators, piles: Piles, name: str) -> Any:
    from tensorflow_data_validation.statistics import stats_impl

    statistics = stats_impl.extract_statistics_output(accumulators, generators)
    statistics.datasets[0].name = name
    piles.write(statistics.datasets[0].features)
    return statistics


def _as_lists(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch in the form that TFDV reads: every column a list of int64, float32 or binary, null where it is missing."""
    columns = [_as_list(column) for column in batch.columns]
    return pa.RecordBatch.from_arrays(columns, batch.schema.names)


def _as_list(column: pa.Array) -> pa.Array:
    from tfx_bsl.arrow.array_util import ToSingletonListArray

    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        return _without_null_items(column)
    values = _primitive(column)
    return ToSingletonListArray(values)


def _without_null_items(column: pa.Array) -> pa.Array:
    """The lists with their null items left out; a null list stays null."""
    items = _primitive(pc.list_flatten(column))
    parents = pc.list_parent_indices(column)
    kept = pc.is_valid(items)
    counts = np.bincount(parents.filter(kept).to_numpy(zero_copy_only=False), minlength=len(column))
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), type=pa.int32(), mask=np.append(_null_mask(column), False))
    return pa.ListArray.from_arrays(offsets, items.filter(kept))


def _null_mask(column: pa.Array) -> np.ndarray[Any, np.dtype[np.bool_]]:
    mask: np.ndarray[Any, np.dtype[np.bool_]] = column.is_null().to_numpy(zero_copy_only=False)
    return mask


def _primitive(column: pa.Array) -> pa.Array:
    """Values as TFDV reads them. NaN is a missing number; of bytes, only whether they are there is described."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _primitive(column.dictionary_decode())
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return column.cast(pa.binary() if pa.types.is_string(kind) else pa.large_binary())
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return pc.if_else(column.is_valid(), pa.scalar(b"", pa.binary()), pa.scalar(None, pa.binary()))
    if pa.types.is_floating(kind):
        return pc.if_else(pc.is_nan(column), pa.scalar(None, kind), column)
    return column
