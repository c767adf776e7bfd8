"""Whether the validation set is one to watch a training by: `split.validation_holds`, checked before anything is sealed or trained.

That it is large enough, `splits.py` sees to. Here it is held to what it must hold: pairs that are known to be alike and to differ, enough
different values, every value of the columns that it is to be spread over, and the context that production sends today. Pure: a table and
masks in, a refusal with a table of reasons out. A check that the project does not ask for costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mlpipelines.errors import DataRejected
from mlpipelines.ingestion.splits import Mask
from mlpipelines.project import Project, ValidationHolds

Reason = dict[str, object]
_DAY = 86_400
_HALF = 0.5
"""A rare value needs this part of its share of the training rows: more would be asked than there is."""
_PAIR = 2
_MISSING = "(missing)"


def require_validation_set(rows: pa.Table, train: Mask, validation: Mask, project: Project) -> None:
    """Refuse a validation set that does not hold what the project says that it must.

    Args:
        rows: all that were read, with every column that is named.
        train: the rows that are trained on.
        validation: the rows that watch.
        project: its `split.validation_holds`, label and time.

    Raises:
        DataRejected: with every rule that is broken, what was found and what is needed.
    """
    wanted = project.split.validation_holds
    reasons = [
        *_pairs(rows, train, validation, project, wanted),
        *_variety(rows, validation, wanted),
        *_spread(rows, train, validation, wanted),
        *_context(rows, validation, project, wanted),
    ]
    if reasons:
        first = reasons[0]
        more = f", and {len(reasons) - 1} other rules are broken" if len(reasons) > 1 else ""
        raise DataRejected(
            f"The validation set does not hold what split.validation_holds asks for: {first['what']} ({first['rule']}){more}. Read more rows, give "
            "split.balance the column that is short, raise split.validation, or ask for less in project.yaml.",
            report=reasons,
        )


def _pairs(rows: pa.Table, train: Mask, validation: Mask, project: Project, wanted: ValidationHolds) -> Iterator[Reason]:
    """Of how many labels that are trained on there are two rows at least: pairs known to be alike, and known to differ."""
    if wanted.pairs is None or project.label is None:
        return
    column = project.label.column
    learned, held = _counts(rows[column], train), _counts(rows[column], validation)
    short = [value for value in learned if held.get(value, 0) < _PAIR]
    share = 1 - len(short) / max(1, len(learned))
    if share < wanted.pairs or len(learned) - len(short) < _PAIR:
        what = f"{len(learned) - len(short)} of {len(learned)} labels have two validation rows or more, {share:.0%}, and {wanted.pairs:.0%} must"
        yield {"column": column, "rule": "pairs", "what": what, "examples": ", ".join(sorted(short)[:5])}


def _variety(rows: pa.Table, validation: Mask, wanted: ValidationHolds) -> Iterator[Reason]:
    for column, least in wanted.distinct.items():
        found = len(_counts(rows[column], validation))
        if found < least:
            yield {"column": column, "rule": "distinct", "what": f"{found:,} different values of {column}, at least {least:,} are needed"}


def _spread(rows: pa.Table, train: Mask, validation: Mask, wanted: ValidationHolds) -> Iterator[Reason]:
    for column, least in wanted.spread.items():
        learned, held = _counts(rows[column], train), _counts(rows[column], validation)
        all_learned, all_held = sum(learned.values()), sum(held.values())
        for value, count in sorted(learned.items()):
            needed = int(min(least, _HALF * count / all_learned) * all_held)
            if held.get(value, 0) < needed:
                what = f"{column} {value!r} has {held.get(value, 0):,} of {all_held:,} validation rows, at least {needed:,} are needed"
                yield {"column": column, "rule": "spread", "what": what, "examples": value}


def _context(rows: pa.Table, validation: Mask, project: Project, wanted: ValidationHolds) -> Iterator[Reason]:
    """How far the shares of a column's values lie from those of the newest rows, sealed ones included: nobody learns from a refusal."""
    if not wanted.like_newest or project.time is None:
        return
    seconds = np.asarray(rows[project.time].combine_chunks(), dtype=np.int64)
    newest = seconds > seconds.max(initial=0) - wanted.newest_days * _DAY
    for column, most in wanted.like_newest.items():
        distance = _distance(_counts(rows[column], validation), _counts(rows[column], newest))
        if distance > most:
            what = (
                f"the values of {column} lie {distance:.2f} from those of the last {wanted.newest_days} days, at most {most:.2f} is allowed"
            )
            yield {"column": column, "rule": "like_newest", "what": what}


def _distance(ours: Mapping[str, int], theirs: Mapping[str, int]) -> float:
    """Total variation distance of two counts of values, 0 to 1."""
    here, there = max(1, sum(ours.values())), max(1, sum(theirs.values()))
    return sum(abs(ours.get(value, 0) / here - theirs.get(value, 0) / there) for value in {*ours, *theirs}) / 2


def _counts(column: pa.ChunkedArray, mask: Mask) -> dict[str, int]:
    """Rows of each value as text, a missing one among them."""
    values = pc.fill_null(column.filter(pa.array(mask)).cast(pa.string()), _MISSING)
    return {str(item["values"]): int(item["counts"]) for item in pc.value_counts(values).to_pylist()}
