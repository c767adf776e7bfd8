"""Which predictions people look at: a pure function of a batch of the prediction log.

Two things are wanted of the few cases that people have time for. Those that the model is least sure of teach it most; a sample at
random says how good it is. So a batch is parted: the least certain rows are taken for certain, and of the rest a systematic sample is drawn, of rows in the
order of their class and, within it, of a hash of their prediction id. Each class so gets its share of the sample, and classes that would get
fewer than `minimum` are filled up, the rarest first.

Every row knows the probability with which this procedure takes it (over the hashes, which are as good as random): 1 for the least certain,
`minimum / rows of the class` in a class that is filled up, and the sample's share everywhere else. A figure that weights each review by
the inverse is about all rows of the log, not about the odd ones that were looked at (Horvitz and Thompson, 1952).

Nothing here draws a number: two replicas that read the same batch choose the same, and a run that crashed chooses the same again.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from mlserving.gateway.routing import unit


class Why(StrEnum):
    """Why somebody should look at it."""

    UNCERTAIN = "uncertain"
    RANDOM = "random"
    RARE = "rare"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A row of the log that could be reviewed."""

    prediction_id: str
    row: int
    label: str
    """The predicted class."""
    certainty: float | None
    """Confidence, or the margin between the first and the second class; None where the model says neither."""

    @property
    def key(self) -> tuple[str, int]:
        """What names it in the log."""
        return self.prediction_id, self.row


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """How the reviews are parted."""

    random: float = 0.3
    """Share of the cases that are drawn at random; the others are the least certain."""
    minimum: int = 2
    """Cases of each predicted class, as far as half of the random share goes."""
    double: float = 0.1
    """Share of the cases that two people look at, to see how far they agree."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A row that people look at."""

    candidate: Candidate
    why: Why
    probability: float
    """With which a row like this one is chosen."""
    double: bool = False


def choose(rows: Iterable[Candidate], reviews: int, shares: Shares) -> list[Choice]:
    """What people look at, in the order in which they should: mixed, so that a day that ends early has seen of everything.

    Args:
        rows: the batch. A row that is in it twice counts once.
        reviews: how many may be asked for; a case that two people look at takes two. Never more are.
        shares: how they are parted.
    """
    batch = sorted({row.key: row for row in rows}.values(), key=lambda row: (_hash("review", row), row.key))
    most = min(len(batch), max(1, int(reviews / (1 + shares.double) + 1e-9))) if reviews > 0 else 0
    uncertain = _least_certain(batch, most - math.ceil(shares.random * most))
    taken = {row.key for row in uncertain}
    sample = _sample([row for row in batch if row.key not in taken], most - len(uncertain), shares.minimum)
    chosen = [*(Choice(candidate=row, why=Why.UNCERTAIN, probability=1.0) for row in uncertain), *sample]
    return _twice(sorted(chosen, key=lambda choice: _hash("order", choice.candidate)), reviews - len(chosen), shares.double)


def _hash(salt: str, row: Candidate) -> float:
    return unit(salt, f"{row.prediction_id}/{row.row}")


def _least_certain(batch: Sequence[Candidate], most: int) -> list[Candidate]:
    """Rows that are as certain as the first that finds no room find none either: between equals only the sample may decide."""
    ranked = sorted((row.certainty, row.key, row) for row in batch if row.certainty is not None)
    cut = ranked[most][0] if 0 <= most < len(ranked) else math.inf
    return [row for certainty, _, row in ranked[: max(0, most)] if certainty < cut]


def _sample(rows: Sequence[Candidate], most: int, minimum: int) -> list[Choice]:
    """A systematic sample with its rare classes filled up. `rows` are in the order of their hashes."""
    if not rows or most <= 0:
        return []
    classes: defaultdict[str, list[Candidate]] = defaultdict(list)
    for row in rows:
        classes[row.label].append(row)
    sizes = {label: len(members) for label, members in classes.items()}
    wanted, reserved = _floors(sizes, most, minimum)
    base = min(most - reserved, len(rows))
    drawn = _systematic(rows, base)
    chosen: list[Choice] = []
    for label, members in sorted(classes.items()):
        size = len(members)
        lifted = wanted.get(label, 0) > _whole(base * size / len(rows))
        picked = [row for row in members if row.key in drawn]
        if lifted:  # within a class all rows are alike before their hashes are known, so the first by hash may fill it up
            picked += [row for row in members if row.key not in drawn][: max(0, wanted[label] - len(picked))]
        why, probability = (Why.RARE, wanted[label] / size) if lifted else (Why.RANDOM, base / len(rows))
        chosen += [Choice(candidate=row, why=why, probability=probability) for row in picked]
    return chosen


def _floors(sizes: Mapping[str, int], most: int, minimum: int) -> tuple[dict[str, int], int]:
    """How many of each class there must be, and what of `most` is kept for that: at most half.

    One more for each class, the rarest first, round after round, so that with little time many classes are seen once.
    """
    total, room = sum(sizes.values()), most // 2
    base = most - room  # what is sampled at least: a class that gets enough even so needs nothing
    wanted: dict[str, int] = {}
    kept = 0
    for round_ in range(1, minimum + 1):
        for label, size in sorted(sizes.items(), key=lambda item: (item[1], item[0])):
            if size < round_ or _whole(base * size / total) >= round_:
                continue
            if kept == room:
                return wanted, kept
            wanted[label] = round_
            kept += 1
    return wanted, kept


def _systematic(rows: Sequence[Candidate], most: int) -> set[tuple[str, int]]:
    """`most` of `rows`, evenly spaced in the order of class and hash, from a start that the first row's hash says."""
    ordered = sorted(rows, key=lambda row: row.label)
    start = _hash("start", rows[0])
    return {ordered[min(len(rows) - 1, int((start + place) * len(rows) / most))].key for place in range(most)}


def _whole(share: float) -> int:
    """What a systematic sample takes of a class at least: the share, rounded down."""
    return math.floor(share + 1e-9)


def _twice(chosen: Sequence[Choice], spare: int, share: float) -> list[Choice]:
    """Some of them for two people: as many as there is time for."""
    found: list[Choice] = []
    for choice in chosen:
        double = spare > 0 and _hash("double", choice.candidate) < share
        spare -= double
        found.append(Choice(candidate=choice.candidate, why=choice.why, probability=choice.probability, double=double))
    return found
