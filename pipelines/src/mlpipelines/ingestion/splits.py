"""Who is trained on, who watches training, and who judges. Pure: arrays in, masks out.

Everything goes by a hash of the row's identity (or of its group), so no state is needed to decide alike in the next run:

- Without `stratify` and `balance` a row is chosen when its hash is below the share. Other rows never change that.
- With them, each span of time is split by itself: inside a span and a stratum the lowest hashes are chosen, and what rounding
  leaves over is carried to the stratum's next span. So the shares are exact, and a closed span never changes, which keeps
  the analyses of past spans usable.

The validation set is drawn from all of what is not sealed, also when the test set is the newest rows (`by: time`): newest
rows in validation would be missing from training, where they are worth most, and every new month would move old rows from
one split to the other. Time's honest judge is the test set. Where a column says who goes where (`by: column`), nothing is drawn. The story
goes on in `sealed.py` and `steps/ingest.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mlpipelines.errors import ConfigError
from mlpipelines.ingestion.row_keys import Hashes, mixed, text_hashes, value_hashes
from mlpipelines.ingestion.spans import Codes
from mlpipelines.project import Split

Mask = npt.NDArray[np.bool_]
MINIMUM = 0.1
"""Validation rows for each training row, at least."""
_MINIMUM_SHARE = MINIMUM / (1 + MINIMUM)
SIDES = ("train", "validation", "test")
"""What a column that splits may say; `valid` is `validation`."""
_MOST = 0.5  # balancing never takes more than half of a small team's rows away from training


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitRows:
    """What a split looks at, one entry for each row."""

    hashes: Hashes
    """Of each row's identity; see `unit_hashes`."""
    spans: Codes
    seconds: npt.NDArray[np.int64] | None = None
    strata: Codes | None = None
    balance: Codes | None = None
    said: Codes | None = None
    """Where a column of the source puts each row: a place in `SIDES`; for `by: column`."""

    def __len__(self) -> int:
        """Rows."""
        return len(self.hashes)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Units:
    """What is chosen whole: a row, or all rows of a group."""

    hashes: Hashes
    rows: npt.NDArray[np.int64]
    spans: Codes
    strata: Codes | None
    balance: Codes | None
    of_row: npt.NDArray[np.int64] | None
    """Each row's unit; None where every row is one."""

    def mask(self, chosen: Mask) -> Mask:
        """`chosen` units as rows."""
        return chosen if self.of_row is None else chosen[self.of_row]


def codes(values: pa.Array) -> Codes:
    """A number for each distinct value, null among them."""
    if pa.types.is_nested(values.type):
        return np.unique(value_hashes(values), return_inverse=True)[1].astype(np.int64)
    encoded = values.dictionary_encode()
    return np.asarray(pc.fill_null(encoded.indices, len(encoded.dictionary)), dtype=np.int64)


def said_sides(values: pa.Array) -> Codes:
    """Each row's place in `SIDES`; -1 where the value is none of them."""
    text = pc.replace_with_mask(values, pc.equal(values, "valid").fill_null(False), pa.scalar("validation", values.type))
    return np.asarray(pc.fill_null(pc.index_in(text, value_set=pa.array(SIDES, values.type)), -1), dtype=np.int64)


def unit_hashes(keys: pa.Array, groups: pa.Array | None, seed: int) -> Hashes:
    """What the split goes by: a hash of each row's group, or of its key where there is none, so that it stands by itself."""
    if groups is None:
        return text_hashes(keys, str(seed))
    alone = np.asarray(groups.is_null())
    return np.where(alone, text_hashes(keys, str(seed)), text_hashes(groups, str(seed))) if alone.any() else text_hashes(groups, str(seed))


def select_test(rows: SplitRows, split: Split) -> Mask:
    """The rows to seal on the first run. With `by: time` they may be none or all; the caller says so in the user's words."""
    if split.by == "time":
        assert rows.seconds is not None
        return rows.seconds >= _cutoff(rows.seconds, split)
    if split.by == "column":
        assert rows.said is not None
        return np.asarray(rows.said == SIDES.index("test"))
    units = _units(rows, split, purpose="test")
    if split.by == "group" or units.strata is not None:
        chosen = _lowest(units, np.full(len(units.hashes), split.test), carried=split.by != "group")
    else:
        chosen = _below(units.hashes, split.test)
    return units.mask(_topped_up(chosen, units, minimum=1))


def select_validation(rows: SplitRows, split: Split) -> Mask:
    """The rows that watch training; all others are trained on.

    Raises:
        ConfigError: they would be fewer than a tenth of the training rows.
    """
    if split.by == "column":
        assert rows.said is not None
        said = np.asarray(rows.said == SIDES.index("validation"))
        _require_minimum(int(said.sum()), len(rows), split)
        return said
    units = _units(rows, split, purpose="validation")
    if units.strata is None and units.balance is None:
        chosen = _below(units.hashes, split.validation)
    else:
        shares = np.full(len(units.hashes), split.validation) if units.balance is None else _balanced(units, split.validation)
        chosen = _lowest(units, shares, carried=split.by != "group")
    if split.validation >= _MINIMUM_SHARE:  # chance, or rounding in many small strata, must not refuse a run
        chosen = _topped_up(chosen, units, minimum=int(np.ceil(len(rows) * _MINIMUM_SHARE)))
    mask = units.mask(chosen)
    _require_minimum(int(mask.sum()), len(rows), split)
    return mask


def drawn_alone(keys: pa.Array, groups: pa.Array | None, split: Split) -> Mask:
    """Of rows that come beside those of the source, which watch training: by their hash alone, so that they move no other row."""
    return _below(mixed(unit_hashes(keys, groups, split.seed), "validation"), split.validation)


def _require_minimum(validation: int, rows: int, split: Split) -> None:
    if validation >= MINIMUM * (rows - validation):
        return
    if split.by == "column":
        raise ConfigError(
            f"The column {split.column!r}, which split.column names, says `validation` of {validation:,} rows and `train` of {rows - validation:,}; "
            "validation needs at least a tenth of the training rows. Correct it at the source, or set split.by to row in project.yaml."
        )
    raise ConfigError(
        f"split.validation is {split.validation}, which gives {validation:,} validation rows for {rows - validation:,} training rows; "
        f"at least a tenth is needed. Set split.validation to {_MINIMUM_SHARE:.3f} or more in project.yaml."
    )


def _units(rows: SplitRows, split: Split, *, purpose: str) -> _Units:
    if split.by != "group":
        hashes = mixed(rows.hashes, purpose)
        ones = np.ones(len(rows), dtype=np.int64)
        balance = rows.balance if purpose == "validation" else None
        return _Units(hashes=hashes, rows=ones, spans=rows.spans, strata=rows.strata, balance=balance, of_row=None)
    unique, of_row, counts = np.unique(rows.hashes, return_inverse=True, return_counts=True)
    return _Units(
        hashes=mixed(unique, purpose),
        rows=counts.astype(np.int64),
        spans=np.zeros(len(unique), dtype=np.int64),  # a group lives through many spans
        strata=None if rows.strata is None else _most_frequent(of_row, rows.strata),
        balance=None if rows.balance is None or purpose != "validation" else _most_frequent(of_row, rows.balance),
        of_row=of_row,
    )


def _most_frequent(of_row: npt.NDArray[np.int64], values: Codes) -> Codes:
    """Each unit's most frequent value; of equally frequent ones the largest code."""
    units, found, pair = _pairs(of_row, values)
    order = np.lexsort((np.bincount(pair), units))
    last = np.flatnonzero(np.append(np.diff(units[order]) != 0, True))
    return np.asarray(found[order][last], dtype=np.int64)


def _pairs(first: Codes, second: Codes) -> tuple[Codes, Codes, npt.NDArray[np.int64]]:
    """The distinct pairs in order, as two arrays, and each row's place among them."""
    low = second.min(initial=0)
    width = second.max(initial=0) - low + 1
    distinct, place = np.unique(first * width + (second - low), return_inverse=True)
    return np.asarray(distinct // width), np.asarray(distinct % width + low), place


def _below(hashes: Hashes, share: float) -> Mask:
    return np.asarray(hashes < np.uint64(share * 2.0**64))


def _lowest(units: _Units, shares: npt.NDArray[np.float64], *, carried: bool) -> Mask:
    """In each cell (span and stratum) the units of lowest hash, until they hold the cell's share of rows.

    Args:
        units: what is chosen from.
        shares: of each unit's cell; alike inside a cell.
        carried: what rounding leaves over goes to the next span of the same stratum.
    """
    strata = _combined(units.strata, units.balance, len(units.hashes))
    stratum, _, cell = _pairs(strata, units.spans)
    targets = np.bincount(cell, weights=units.rows * shares).astype(np.float64)
    quotas = _carried(targets, stratum) if carried else targets
    order = np.lexsort((units.hashes, cell))
    held = np.cumsum(units.rows[order])
    starts = np.concatenate([[0], np.flatnonzero(np.diff(cell[order])) + 1])
    before_cell = (held - units.rows[order])[starts]
    ordered_cell = cell[order]
    middle = held - before_cell[ordered_cell] - units.rows[order] / 2
    chosen = np.zeros(len(units.hashes), dtype=np.bool_)
    chosen[order] = middle < quotas[ordered_cell]
    return chosen


def _combined(strata: Codes | None, balance: Codes | None, count: int) -> Codes:
    if strata is None or balance is None:
        only = strata if strata is not None else balance
        return only if only is not None else np.zeros(count, dtype=np.int64)
    return np.asarray(strata * (balance.max(initial=0) + 1) + balance, dtype=np.int64)


def _carried(targets: npt.NDArray[np.float64], strata: Codes) -> npt.NDArray[np.float64]:
    """Targets as whole numbers whose running sum, inside a stratum, is the rounded running sum of the targets."""
    total = np.cumsum(targets)
    starts = np.concatenate([[0], np.flatnonzero(np.diff(strata)) + 1])
    before = np.repeat((total - targets)[starts], np.diff(np.append(starts, len(targets))))
    upto = np.floor(total - before + 0.5 + 1e-9)
    previous = np.where(np.isin(np.arange(len(targets)), starts), 0.0, np.concatenate([[0.0], upto[:-1]]))
    return np.asarray(upto - previous)


def _balanced(units: _Units, share: float) -> npt.NDArray[np.float64]:
    """The share of each unit's rows that makes all values of `balance` weigh alike in their span, as far as rows allow."""
    assert units.balance is not None
    spans, _, cell = _pairs(units.spans, units.balance)
    counts = np.bincount(cell, weights=units.rows)
    shares = np.empty(len(counts))
    for span in np.unique(spans):
        inside = spans == span
        shares[inside] = _water_filled(counts[inside], share)
    return np.asarray(shares[cell])


def _water_filled(counts: npt.NDArray[np.float64], share: float) -> npt.NDArray[np.float64]:
    """Equal amounts from every pile, which sum to `share` of all, none above half of its pile; as shares of each pile."""
    most = counts * max(_MOST, share)
    left = share * counts.sum()
    level = 0.0
    for place, limit in enumerate(np.sort(most)):
        level = left / (len(counts) - place)
        if level <= limit:
            break
        left -= limit
    return np.asarray(np.minimum(level, most) / counts)


def _topped_up(chosen: Mask, units: _Units, *, minimum: int) -> Mask:
    """`chosen`, and further units by hash until they hold `minimum` rows."""
    missing = minimum - int(units.rows[chosen].sum())
    if missing <= 0:
        return chosen
    others = np.flatnonzero(~chosen)
    others = others[np.argsort(units.hashes[others], kind="stable")]
    held_before = np.cumsum(units.rows[others]) - units.rows[others]
    more = chosen.copy()
    more[others[held_before < missing]] = True
    return more


def _cutoff(seconds: npt.NDArray[np.int64], split: Split) -> int:
    """The second from which rows are sealed: a clean cut, as near to `split.test` as equal times allow."""
    if split.test_from is not None:
        return midnight(split.test_from)
    ordered = np.sort(seconds)
    wanted = round(len(ordered) * split.test)
    at: Any = ordered[max(0, len(ordered) - max(1, wanted))]
    first, after = np.searchsorted(ordered, at, side="left"), np.searchsorted(ordered, at, side="right")
    more, fewer = len(ordered) - int(first), len(ordered) - int(after)
    if fewer and wanted - fewer < more - wanted:
        at = ordered[after]
    return int(at)


def midnight(day: date) -> int:
    """The first second of `day`, UTC, since 1970."""
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())
