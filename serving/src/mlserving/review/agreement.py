"""What reviews are worth: how far reviewers agree, how often the model was right, and how sure one may be of either.

Pure functions of what was said. Agreement is of cases that several people looked at, beyond what chance would give: Cohen's kappa for two people
(Cohen, 1960), Krippendorff's alpha for all of them together (nominal data; Krippendorff, Content Analysis, chapter 11). 1 is always, 0 is
as often as by chance. All reviewers see the model's class, so they agree more than people would who do not.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations

Z95 = 1.959964
FEW = 20
"""Cases that two people looked at, below which a figure of agreement says little."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What one person said of one case, in force. People who were unsure said no label and are not here."""

    item: int
    reviewer: str
    label: str
    predicted: str
    why: str
    probability: float
    settled: bool = False
    """A lead said it, to settle a case: it stands, and it is no independent opinion."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure and the cases that it comes from. `value` is None where they are too few or too alike for it to mean anything."""

    value: float | None
    n: int


@dataclass(frozen=True, slots=True)
class Share:
    """A share with its 95 % interval (Wilson, 1927)."""

    value: float
    low: float
    high: float
    n: int


def alpha(said: Iterable[Said]) -> Figure:
    """Krippendorff's alpha over all cases with at least two opinions; `n` counts those cases."""
    cases = [list(labels.values()) for labels in _opinions(said).values() if len(labels) > 1]
    together: defaultdict[tuple[str, str], float] = defaultdict(float)
    for labels in cases:
        pairs = Counter((one, other) for i, one in enumerate(labels) for j, other in enumerate(labels) if i != j)
        for pair, times in pairs.items():
            together[pair] += times / (len(labels) - 1)
    margins: defaultdict[str, float] = defaultdict(float)
    for (one, _), count in together.items():
        margins[one] += count
    total = sum(margins.values())
    observed = sum(count for (one, other), count in together.items() if one != other)
    expected = (total * total - sum(count * count for count in margins.values())) / (total - 1) if total > 1 else 0.0
    return Figure(1 - observed / expected if expected else None, len(cases))


def kappas(said: Iterable[Said]) -> dict[tuple[str, str], Figure]:
    """Cohen's kappa for each two people who looked at the same cases."""
    both: defaultdict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for labels in _opinions(said).values():
        for one, other in combinations(sorted(labels), 2):
            both[one, other].append((labels[one], labels[other]))
    return {pair: Figure(_kappa(answers), len(answers)) for pair, answers in sorted(both.items())}


def confirmed(said: Iterable[Said]) -> dict[str, Share]:
    """By predicted class: the share of the reviews that confirmed it. Of what was looked at, so of odd cases above all."""
    right: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    for each in said:
        seen[each.predicted] += 1
        right[each.predicted] += each.label == each.predicted
    return {label: share(right[label], count) for label, count in sorted(seen.items())}


def accuracy(said: Iterable[Said], chosen: Mapping[tuple[str, str], int]) -> Share | None:
    """How often the model is right on the whole log, not only on what was looked at: each case weighs as many as it stands for.

    Cases that nobody has looked at yet are taken to be like the others that were chosen for the same reason in the same class. The interval
    is Wilson's with the sample size that the unequal weights leave (Kish, 1965).

    Args:
        said: what was said; of a case with several opinions the last counts.
        chosen: how many cases were chosen, by why and predicted class.
    """
    last = {each.item: each for each in said}
    looked_at = Counter((each.why, each.predicted) for each in last.values())
    weights = {
        item: max(1.0, chosen.get(group, 0) / looked_at[group]) / each.probability
        for item, each in last.items()
        if (group := (each.why, each.predicted))
    }
    total = sum(weights.values())
    if not total:
        return None
    right = sum(weights[item] for item, each in last.items() if each.label == each.predicted)
    effective = total * total / sum(weight * weight for weight in weights.values())
    low, high = _wilson(right / total, effective)
    return Share(right / total, low, high, len(last))


def share(right: int, n: int) -> Share:
    """`right` of `n`, with its interval."""
    low, high = _wilson(right / n, n)
    return Share(right / n, low, high, n)


def _wilson(value: float, n: float) -> tuple[float, float]:
    middle = value + Z95 * Z95 / (2 * n)
    spread = Z95 * math.sqrt(value * (1 - value) / n + Z95 * Z95 / (4 * n * n))
    scale = 1 + Z95 * Z95 / n
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


def _opinions(said: Iterable[Said]) -> dict[int, dict[str, str]]:
    cases: defaultdict[int, dict[str, str]] = defaultdict(dict)
    for each in said:
        if not each.settled:
            cases[each.item][each.reviewer] = each.label
    return cases


def _kappa(answers: list[tuple[str, str]]) -> float | None:
    n = len(answers)
    agreed = sum(one == other for one, other in answers) / n
    first, second = Counter(one for one, _ in answers), Counter(other for _, other in answers)
    chance = sum(first[label] * second[label] for label in first) / (n * n)
    return (agreed - chance) / (1 - chance) if chance < 1 else None
