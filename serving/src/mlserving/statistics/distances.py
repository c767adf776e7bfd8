"""How far two distributions lie apart, and how far apart chance alone would put them.

Used by `mlpipelines.steps.validate`, against the last accepted data set (drift) and between the splits (skew), and by `mlserving.monitor`,
which holds what was asked against what was trained on. Both measures lie between 0 and 1. Each comes with its noise: what two samples
of these sizes from one distribution stay below in all but `false_alarm` of cases. The pipeline refuses data only above
*threshold + noise*; the monitor, which must not miss for weeks what it could see today, alarms above the larger of the two
(`mlserving.monitor.drift`). So small data sets do not cry wolf, and large ones are judged by the threshold alone. Rows are
taken to be independent; where they come in groups, chance does more, and thresholds need to be wider.

- **Text**: L-infinity, the largest change of any value's share (the measure of TensorFlow Data Validation's comparators).
  A value's share is a mean of zeros and ones, so the noise of its change is `z · sqrt(p (1 - p) (1/n + 1/m))`.
  What is compared is picked by how frequent it is in *both* samples together: picked by one sample, its frequent values
  would be those that it has too many of by chance. All others count as one value. Beside it stands the share of rows whose
  value the other side lacks, less what chance brings about: many new merchants, each of them rare.
- **Numbers**: Jensen-Shannon distance, the square root of the divergence in bits (Lin 1991; Endres and Schindelin 2003,
  who show that it is a metric), over buckets that hold equal shares of the *reference*, open at both ends. Equal-width
  buckets, as TensorFlow Data Validation has them, put nearly all of a heavy-tailed amount into one bucket, and where its
  edges fall depends on one extreme row. Noise: `8 · divergence / (1/n + 1/m)` in nats follows chi-square with (buckets - 1)
  degrees of freedom, for the divergence is a quarter of the chi-square distance to second order; and since the distance is a
  metric, a true distance below the threshold cannot be measured above threshold + noise but by that chance.
  Where values pile up (zeros, whole numbers), the statistics' histogram blurs the pile's edges: thresholds below 0.06 ask
  for more than it resolves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist

from mlserving.statistics.columns import Column, Numbers, Texts

FALSE_ALARM = 1e-6
"""Chance of an alarm where nothing changed, for one column and one comparison, unless told otherwise."""
_BUCKETS = (4, 20)
_ROWS_IN_BUCKET = 40
_SLIVER = 0.9
_SHOWN = 40
_NAMED = 20
_POOLED_ROWS = 10
"""Values with fewer rows than this in both samples together are not looked at by themselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """How far a column moved, and what moved most."""

    measure: str
    distance: float
    noise: float
    where: str
    """What moved most, to be read by a person."""
    values: tuple[str, ...] = ()
    """The text values meant by `where`, the most frequent ones; empty for numbers and for rare values."""
    between: tuple[float, float] | None = None
    """The bucket meant by `where`: above the first, not above the second."""

    def exceeds(self, threshold: float) -> bool:
        """Whether chance does not explain that the distance is above `threshold`."""
        return self.distance > threshold + self.noise


def shift(reference: Column, current: Column) -> Shift | None:
    """The distance between two samples of one column, the one that chance explains least; None where there is nothing to compare."""
    return max(shifts(reference, current), key=_beyond_chance, default=None)


def shifts(reference: Column, current: Column, *, false_alarm: float = FALSE_ALARM) -> list[Shift]:
    """All that is compared between two samples of one column: one distance for numbers, one for each frequent value for text.

    Args:
        reference: what was.
        current: what is.
        false_alarm: the chance that noise leaves to *any* of them.
    """
    rows = (reference.present, current.present)
    if reference.numbers is not None and current.numbers is not None:
        return [jensen_shannon(reference.numbers, current.numbers, rows=rows, false_alarm=false_alarm)]
    if reference.texts is not None and current.texts is not None:
        return _text_shifts(reference.texts, current.texts, rows=rows, false_alarm=false_alarm)
    return []


def _beyond_chance(shift: Shift) -> tuple[float, float]:
    return max(shift.distance - shift.noise, 0.0), shift.distance


def share_noise(share: float, rows: tuple[int, int], false_alarm: float = FALSE_ALARM) -> float:
    """How much the share of one value may differ between two samples of these many rows by chance."""
    n, m = max(rows[0], 1), max(rows[1], 1)
    return _z(false_alarm) * math.sqrt(max(share * (1 - share), 0.0) * (1 / n + 1 / m))  # shares are sums: 1 + 1e-16 happens


def _z(false_alarm: float) -> float:
    return NormalDist().inv_cdf(1 - false_alarm / 2)


def pooled_share(shares: tuple[float, float], rows: tuple[int, int]) -> float:
    """The share in both samples together."""
    return (shares[0] * rows[0] + shares[1] * rows[1]) / max(sum(rows), 1)


def l_infinity(reference: Texts, current: Texts, *, rows: tuple[int, int]) -> Shift:
    """Largest change of a value's share, of the share of all rare values, or of the share of values that one side lacks.

    Args:
        reference: what was.
        current: what is.
        rows: how many rows have a value, in each; for lists this is less than the number of values.
    """
    return max(_text_shifts(reference, current, rows=rows, false_alarm=FALSE_ALARM), key=_beyond_chance)


def _text_shifts(reference: Texts, current: Texts, *, rows: tuple[int, int], false_alarm: float) -> list[Shift]:
    listed = _listed_shares(reference, current, rows)
    frequent = {value: pair for value, pair in listed.items() if pooled_share(pair, rows) * sum(rows) >= _POOLED_ROWS}
    p, q = (max(0.0, 1 - sum(pair[side] for pair in frequent.values())) for side in (0, 1))
    each = false_alarm / (len(frequent) + 3)  # one chance, shared out: any of them may be the largest
    return [
        *(_moved(pair, f"the share of {_short(value)} went", rows, each, (value,)) for value, pair in frequent.items()),
        _moved((p, q), "the share of all rare values together went", rows, each),
        _one_sided(listed, rows, each, side=1),
        _one_sided(listed, rows, each, side=0),
    ]


def _listed_shares(reference: Texts, current: Texts, rows: tuple[int, int]) -> dict[str, tuple[float, float]]:
    """Shares of the values that both sides would have listed, had they had the pooled share."""
    floor = max(2 * reference.cutoff / reference.total, 2 * current.cutoff / current.total)
    shares = {
        value: (reference.counts.get(value, 0.0) / reference.total, current.counts.get(value, 0.0) / current.total)
        for value in [*reference.counts, *(value for value in current.counts if value not in reference.counts)]
    }
    return {value: pair for value, pair in shares.items() if pooled_share(pair, rows) >= floor}


def _moved(pair: tuple[float, float], what: str, rows: tuple[int, int], false_alarm: float, values: tuple[str, ...] = ()) -> Shift:
    before, after = pair
    return Shift(
        measure="L-infinity",
        distance=abs(after - before),
        noise=share_noise(pooled_share(pair, rows), rows, false_alarm),
        where=f"{what} from {before:.1%} to {after:.1%}",
        values=values,
    )


def _one_sided(listed: dict[str, tuple[float, float]], rows: tuple[int, int], false_alarm: float, *, side: int) -> Shift:
    """The share of rows whose value the other side lacks, beyond what chance brings about.

    Of a value with `k` rows in both samples together, all fall on a side that has the share `s` of the rows with chance `s^k`.
    """
    part = rows[side] / max(sum(rows), 1)
    only = [value for value, pair in listed.items() if pair[side] > 0 and pair[1 - side] == 0]
    share = sum(listed[value][side] for value in only)
    counts = [pooled_share(pair, rows) * sum(rows) for pair in listed.values()]
    expected = sum(k * part**k for k in counts) / max(rows[side], 1)
    spread = math.sqrt(sum(k**2 * part**k * (1 - part**k) for k in counts)) / max(rows[side], 1)
    what = ("values that made up {:.1%} of rows are gone", "{:.1%} of rows hold values that were not there before")[side]
    return Shift(
        measure="L-infinity",
        distance=max(share - expected, 0.0),
        noise=_z(false_alarm) * spread,
        where=f"{what.format(share)}; chance explains {expected:.1%}",
        values=tuple(sorted(only, key=lambda value: -listed[value][side])[:_NAMED]),
    )


def _short(value: str) -> str:
    return repr(value if len(value) <= _SHOWN else value[: _SHOWN - 1] + "…")


def jensen_shannon(reference: Numbers, current: Numbers, *, rows: tuple[int, int], false_alarm: float = FALSE_ALARM) -> Shift:
    """Jensen-Shannon distance over buckets of equal share of the reference.

    Args:
        reference: what was.
        current: what is.
        rows: how many rows have a value, in each; for lists this is less than the number of values.
        false_alarm: the chance that noise leaves.
    """
    edges = _edges(reference, max(_BUCKETS[0], min(_BUCKETS[1], min(rows) // _ROWS_IN_BUCKET)))
    before, after = _masses(reference, edges), _masses(current, edges)
    noise = _chi_square(len(before) - 1, false_alarm) * (1 / max(rows[0], 1) + 1 / max(rows[1], 1)) / 8
    most = max(range(len(before)), key=lambda i: abs(after[i] - before[i]))
    bounds = [-math.inf, *(value for value, _ in edges), math.inf]
    low, high = bounds[most], bounds[most + 1]
    return Shift(
        measure="Jensen-Shannon",
        distance=math.sqrt(max(_divergence(before, after), 0.0)),
        noise=math.sqrt(noise / math.log(2)),
        where=f"{_span(low, high)} went from {before[most]:.1%} to {after[most]:.1%} of rows",
        between=(low, high),
    )


def cut_points(reference: Numbers) -> list[float]:
    """Every value at which `jensen_shannon` may cut, ascending: who counts numbers between these needs to keep none of them."""
    low, high = _BUCKETS
    shares = {step / buckets for buckets in range(low, high + 1) for step in range(1, buckets)}
    return sorted({reference.quantile(share) for share in shares})


def superiority(reference: Numbers, current: Numbers) -> float:
    """The chance that a current value is above a reference one, less the chance that it is below: -1 to 1 (Cliff's delta, 1993).

    An effect size: unlike the distance it says in which direction, and unlike a difference of means one absurd amount does not move it.
    Values in one bucket count as equal.
    """
    edges = _edges(reference, _BUCKETS[1])
    before, after = _masses(reference, edges), _masses(current, edges)
    below = delta = 0.0
    for p, q in zip(before, after, strict=True):
        delta += p * (1 - below - q) - p * below  # current above this bucket, less current below it
        below += q
    return max(-1.0, min(1.0, delta))


def cohens_w(reference: Texts, current: Texts) -> float:
    """Cohen's w (1988): the root of the summed squared changes of shares, each relative to its share. 0.1 is small, 0.3 medium, 0.5 large.

    Values that the reference has in fewer than one in a hundred rows, or lacks, count as one: else a single new one would be infinite.
    """
    frequent = [value for value, count in reference.counts.items() if count >= reference.total / 100]
    pairs = [(reference.counts[value] / reference.total, current.counts.get(value, 0.0) / current.total) for value in frequent]
    rest = [max(0.0, 1 - sum(pair[side] for pair in pairs)) for side in (0, 1)]
    pairs.append((max(rest[0], 0.01), max(rest[1], 0.01)))
    return math.sqrt(sum((q - p) ** 2 / p for p, q in pairs))


def _edges(reference: Numbers, buckets: int) -> list[tuple[float, bool]]:
    """Where to cut: (value, whether the value itself lies below the cut). A pile of equal values gets a bucket of its own.

    A cut that would leave a sliver is left out: statistics do not tell a pile from its near neighbours that exactly.
    Empty buckets below and above all values of the reference stay.
    """
    cuts = {}
    for step in range(1, buckets):
        value = reference.quantile(step / buckets)
        below, up_to = reference.share_below(value), reference.share_up_to(value)
        cuts[value, True] = up_to
        if up_to > below:
            cuts[value, False] = below
    kept: list[tuple[float, bool]] = []
    last = 0.0
    for cut in sorted(cuts):
        if cuts[cut] in (0.0, 1.0) or cuts[cut] - last >= _SLIVER / buckets:
            kept.append(cut)
            last = cuts[cut]
    return kept


def _masses(numbers: Numbers, edges: list[tuple[float, bool]]) -> list[float]:
    shares = [numbers.share_up_to(value) if inside else numbers.share_below(value) for value, inside in edges]
    return [max(after - before, 0.0) for before, after in pairwise([0.0, *shares, 1.0])]


def _divergence(before: list[float], after: list[float]) -> float:
    """Jensen-Shannon divergence in bits, 0 to 1."""
    total = 0.0
    for p, q in zip(before, after, strict=True):
        middle = (p + q) / 2
        total += sum(x * math.log2(x / middle) / 2 for x in (p, q) if x > 0)
    return total


def _chi_square(freedom: int, false_alarm: float) -> float:
    """What chi-square exceeds with chance `false_alarm` (the cube approximation of Wilson and Hilferty, 1931)."""
    spread = 2 / (9 * freedom)
    return freedom * (1 - spread + NormalDist().inv_cdf(1 - false_alarm) * math.sqrt(spread)) ** 3


def _span(low: float, high: float) -> str:
    if low == high:
        return f"the value {low:.6g}"
    if math.isinf(low):
        return f"values up to {high:.6g}"
    return f"values above {low:.6g}" if math.isinf(high) else f"values between {low:.6g} and {high:.6g}"
