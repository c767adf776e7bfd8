"""Which rows make which batch: arithmetic over row groups, with no file opened.

Training shuffles in windows. An epoch's row groups are put in an order of their own, cut evenly between the workers, and
cut again into windows of about `training.shuffle_rows` rows; inside a window every row is drawn at random. All of it
follows from (seed, epoch), so a run that was killed finds its place again, to the row, without reading what came before.
The story goes on in `input_pipeline`, which reads these windows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class RowGroup:
    """One row group of a Parquet file, the smallest thing that can be read by itself."""

    file: Path
    index: int
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Rows `start` to `stop` of a row group."""

    group: RowGroup
    start: int
    stop: int

    @property
    def rows(self) -> int:
        """How many."""
        return self.stop - self.start


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One of several workers that read the same files: all get equally many rows, so that none waits for another in vain."""

    worker: int = 0
    workers: int = 1

    def rows(self, total: int) -> int:
        """Rows of each worker; up to `workers - 1` rows are left out."""
        return total // self.workers


def steps_per_epoch(rows: int, batch_size: int) -> int:
    """Training steps over `rows`: whole batches, or one smaller batch where there are fewer rows than that."""
    return rows // batch_size or min(1, rows)


def window_rows(shuffle_rows: int, batch_size: int) -> int:
    """Rows that are shuffled together: whole batches, at least one."""
    return max(1, shuffle_rows // batch_size) * batch_size


def epoch_order(groups: Sequence[RowGroup], *, seed: int, epoch: int) -> list[RowGroup]:
    """The row groups as this epoch reads them; the same for every worker."""
    order = np.random.default_rng((seed, epoch)).permutation(len(groups))
    return [groups[i] for i in order]


def cut(groups: Iterable[RowGroup], *, start: int, stop: int) -> Iterator[Piece]:
    """Rows `start` to `stop` of the groups laid end to end."""
    offset = 0
    for group in groups:
        first, last = max(start - offset, 0), min(stop - offset, group.rows)
        if first < last:
            yield Piece(group=group, start=first, stop=last)
        offset += group.rows


def cut_windows(groups: Sequence[RowGroup], *, shard: Shard, rows: int) -> list[list[Piece]]:
    """A worker's share of the groups, in windows of `rows` rows; the last may be smaller."""
    each = shard.rows(sum(group.rows for group in groups))
    begin = shard.worker * each
    edges = range(begin, begin + each, rows)
    return [list(cut(groups, start=edge, stop=min(edge + rows, begin + each))) for edge in edges]


def shuffled_rows(count: int, *, seed: int, epoch: int, window: int) -> np.ndarray:
    """Where each of a window's rows goes."""
    return np.random.default_rng((seed, epoch, window)).permutation(count)
