"""How far what was asked lies from what was trained on, and whether that is worth somebody's attention.

A column alarms when its distance is above *both* of two numbers: the threshold, which says what matters to the project, and the noise, which
says what chance alone reaches. Noise is the distance that samples of these sizes from one distribution exceed with a chance of `false_alarm`
(`mlserving.statistics.distances`). One run makes many comparisons, so each gets its part of the run's chance (Bonferroni): a threshold
that is the same whatever the other columns do is one that can be drawn in a chart, which Holm's is not. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from mlserving.monitor.settings import MonitorSettings
from mlserving.statistics.columns import Column, Numbers, Texts
from mlserving.statistics.distances import Shift, cohens_w, pooled_share, share_noise, shifts, superiority

_BARS = 10
_VALUES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A part of a distribution, for a chart: its share then and now."""

    name: str
    before: float
    after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnDrift:
    """One column of one group, against training."""

    column: str
    """`feature/<name>` or `output/<name>`, as in the log."""
    rows: int
    measure: str = ""
    distance: float | None = None
    """None where there is nothing to compare: no row has a value, or the types differ."""
    threshold: float = 0.0
    """The project's."""
    noise: float = 0.0
    effect: float | None = None
    """Cohen's w for text; for numbers Cliff's delta, -1 (all lower) to 1 (all higher)."""
    where: str = ""
    """What moved most, to be read by a person."""
    missing: float = 0.0
    missing_before: float = 0.0
    missing_limit: float = 0.0
    """How far `missing` may lie from `missing_before`: the larger of threshold and noise."""
    new_values: float | None = None
    """The share of values that training did not list; None for numbers."""
    unreadable: str = ""
    """The type in the log, where it cannot be compared with training's."""
    judged: bool = True
    """Whether there are rows enough to alarm."""
    bars: tuple[Bar, ...] = ()

    @property
    def limit(self) -> float:
        """The distance above which it alarms."""
        return max(self.threshold, self.noise)

    @property
    def drifted(self) -> bool:
        """Whether the values moved further than the project and chance allow."""
        return self.judged and self.distance is not None and self.distance > self.limit

    @property
    def missing_moved(self) -> bool:
        """Whether the share of missing values moved further than that."""
        return self.judged and abs(self.missing - self.missing_before) > self.missing_limit


def compare(
    name: str,
    reference: Column,
    current: Column,
    *,
    settings: MonitorSettings,
    false_alarm: float,
    new_values: float | None = None,
    unreadable: str = "",
) -> ColumnDrift:
    """Hold one column against training.

    Args:
        name: as the log has it.
        reference: in training.
        current: in the window.
        settings: thresholds.
        false_alarm: the chance left to this column's distance, and as much again to its missing values.
        new_values: the share of values that training did not list.
        unreadable: the type in the log, where it is not training's.
    """
    short = name.partition("/")[2]
    threshold = settings.columns.get(name, settings.columns.get(short, settings.drift))
    found = _stands_out(shifts(reference, current, false_alarm=false_alarm), threshold)
    shares, rows = (reference.missing_share, current.missing_share), (reference.rows, current.rows)
    return ColumnDrift(
        column=name,
        rows=current.rows,
        measure=found.measure if found else "",
        distance=found.distance if found else None,
        threshold=threshold,
        noise=found.noise if found else 0.0,
        effect=_effect(reference, current),
        where=found.where if found else "",
        missing=shares[1],
        missing_before=shares[0],
        missing_limit=max(settings.missing, share_noise(pooled_share(shares, rows), rows, false_alarm)),
        new_values=new_values,
        unreadable=unreadable,
        judged=current.rows >= settings.min_rows,
        bars=_bars(reference, current),
    )


def _stands_out(found: list[Shift], threshold: float) -> Shift | None:
    """Of all that moved, what is furthest beyond its limit, or closest to it."""
    return max(found, key=lambda shift: shift.distance / max(threshold, shift.noise), default=None)


def _effect(reference: Column, current: Column) -> float | None:
    if reference.numbers is not None and current.numbers is not None:
        return superiority(reference.numbers, current.numbers)
    if reference.texts is not None and current.texts is not None:
        return cohens_w(reference.texts, current.texts)
    return None


def _bars(reference: Column, current: Column) -> tuple[Bar, ...]:
    if reference.numbers is not None:
        return _number_bars(reference.numbers, current.numbers)
    return _text_bars(reference.texts, current.texts) if reference.texts is not None else ()


def _number_bars(before: Numbers, after: Numbers | None) -> tuple[Bar, ...]:
    """Tenths of training; where values pile up there are fewer."""
    cuts = sorted({before.quantile(step / _BARS) for step in range(1, _BARS)})
    names = [f"≤ {cuts[0]:.4g}", *(f"≤ {high:.4g}" for high in cuts[1:]), f"> {cuts[-1]:.4g}"]
    shares = [pairwise([0.0, *(side.share_up_to(cut) for cut in cuts), 1.0]) if side else () for side in (before, after)]
    then, now = ([high - low for low, high in side] or [0.0] * len(names) for side in shares)
    return tuple(Bar(name=name, before=p, after=q) for name, p, q in zip(names, then, now, strict=True))


def _text_bars(before: Texts, after: Texts | None) -> tuple[Bar, ...]:
    now = {value: count / after.total for value, count in after.counts.items()} if after else {}
    then = {value: count / before.total for value, count in before.counts.items()}
    named = sorted({*then, *now}, key=lambda value: (-max(then.get(value, 0.0), now.get(value, 0.0)), value))[:_VALUES]
    bars = [Bar(name=value, before=then.get(value, 0.0), after=now.get(value, 0.0)) for value in named]
    rest = [max(0.0, 1 - sum(shares)) for shares in ([bar.before for bar in bars], [bar.after for bar in bars])]
    if max(rest) > 1e-9:  # noqa: PLR2004  # rounding of sums
        bars.append(Bar(name="all others", before=rest[0], after=rest[1] if after else 0.0))
    return tuple(bars)
