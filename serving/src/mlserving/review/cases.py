"""What the review queue is about: cases, the people who look at them, and what they may say. Data only; `queue` moves them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from mlserving.review.choose import Choice

LONGEST_LABEL = 200


def clean_label(label: str) -> str:
    """A class as people and databases can hold it: without what cannot be printed, and with single spaces."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in label).split())


class Verdict(StrEnum):
    """What somebody did with a case."""

    CONFIRM = "confirm"
    CORRECT = "correct"
    UNSURE = "unsure"
    SKIP = "skip"
    UNDO = "undo"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewCase:
    """A prediction that was chosen."""

    choice: Choice
    version: int
    time: datetime
    features: Mapping[str, Any]
    confidence: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A stretch of a model's log that was looked through."""

    model: str
    since: datetime
    until: datetime
    read: int
    now: datetime
    due: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Opinion:
    """What somebody said of a case before."""

    reviewer: str
    verdict: Verdict
    label: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What a person looks at, and the seat from which they say what it is."""

    seat: int
    model: str
    version: int
    prediction_id: str
    row: int
    time: datetime
    features: Mapping[str, Any]
    label: str
    confidence: float | None
    why: str
    until: datetime
    settles: bool
    opinions: Sequence[Opinion] = field(default=())
    """Of others; only whoever settles the case is shown them."""


@dataclass(frozen=True, slots=True)
class Person:
    """Who looks."""

    name: str
    lead: bool = False
