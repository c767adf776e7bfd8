"""What the review queue holds and what came out of it, as Prometheus metrics: for every model, also when nothing waits.

All of it comes from the database, so every replica tells the same: ask for `max`, never for `sum`. The counts of what people did never go back,
for the book of reviews is only ever added to.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from mlserving.errors import Unavailable
from mlserving.exposition import Families
from mlserving.review.cases import Verdict
from mlserving.review.figures import Figures, figures
from mlserving.review.queue import ReviewQueue
from mlserving.review.tables import Database

PREFIX = "millrace_review_"
_MODEL = ("model",)
DECLARED: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("database_up", "1 where the queue's database answered the last time that it was asked.", ()),
    ("cases", "Cases that were chosen, ever.", _MODEL),
    ("open_cases", "Cases that need an opinion more.", _MODEL),
    ("open_reviews", "Reviews that these cases wait for.", _MODEL),
    ("held_reviews", "Of these, those that somebody looks at just now.", _MODEL),
    ("lead_reviews", "Of these, those that wait for a lead.", _MODEL),
    ("overdue_reviews", "Of these, those that should have been done by now.", _MODEL),
    ("oldest_open_case_age_seconds", "Since the oldest open case was chosen; 0 where none is open.", _MODEL),
    ("reviews_total", "What people did: confirm, correct, unsure, skip, undo.", ("model", "verdict")),
    ("reviewers", "People with a review in force.", _MODEL),
    ("undelivered_labels", "Labels on their way to the prediction log.", _MODEL),
    ("label_lateness_seconds", "Since the oldest of them might have left; 0 where none waits.", _MODEL),
    ("agreement_alpha", "Krippendorff's alpha over cases with several opinions; absent where it cannot be said.", _MODEL),
    ("agreement_cases", "How many cases that is from.", _MODEL),
    ("accuracy", "How often the model is right on the whole log, by weighted reviews; absent before the first.", _MODEL),
    ("accuracy_low", "The lower end of its interval.", _MODEL),
    ("accuracy_high", "The upper end of its interval.", _MODEL),
    ("last_fill_timestamp_seconds", "When the log was last looked through for cases.", _MODEL),
)  # fmt: skip
_MOST_AGE_SECONDS = 20.0


class Told(Collector):
    """Asks the database when Prometheus asks, and not again for some seconds: figures of agreement read every review there is.

    Args:
        database: the queue's.
        clock: tells the time.
    """

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database, self._clock = database, clock
        self._queue = ReviewQueue(database)
        self._lock = threading.Lock()
        self._asked: datetime | None = None
        self._families: list[Metric] = []

    def collect(self) -> Iterator[Metric]:
        """As prometheus-client asks."""
        with self._lock:
            now = self._clock()
            if self._asked is None or (now - self._asked).total_seconds() >= _MOST_AGE_SECONDS:
                self._families, self._asked = self._look(now), now
            yield from self._families

    def _look(self, now: datetime) -> list[Metric]:
        try:
            return families([figures(self._database, model, now) for model in self._queue.models()], now)
        except Unavailable:
            return families(None, now)


def families(found: Iterable[Figures] | None, now: datetime) -> list[Metric]:
    """Every metric of these models; None where the database did not answer."""
    told = Families(PREFIX)
    for name, text, labels in DECLARED:
        told.declare(name, text, labels)
    told.add("database_up", {}, found is not None)
    for each in found or ():
        _tell(told, each, now)
    return told.all()


def _tell(told: Families, figures: Figures, now: datetime) -> None:
    for name, value in _values(figures, now).items():
        told.add(name, {"model": figures.model}, value)
    for verdict in Verdict:
        told.add("reviews_total", {"model": figures.model, "verdict": verdict}, figures.verdicts.get(verdict, 0))


def _values(figures: Figures, now: datetime) -> Mapping[str, float | None]:
    def since(moment: datetime | None) -> float:
        return 0.0 if moment is None else max(0.0, (now - moment).total_seconds())

    accuracy = figures.accuracy
    return {
        "cases": figures.cases,
        "open_cases": figures.open_cases,
        "open_reviews": figures.open_reviews,
        "held_reviews": figures.held,
        "lead_reviews": figures.for_a_lead,
        "overdue_reviews": figures.overdue,
        "oldest_open_case_age_seconds": since(figures.oldest),
        "reviewers": len(figures.people),
        "undelivered_labels": figures.undelivered,
        "label_lateness_seconds": since(figures.oldest_undelivered),
        "agreement_alpha": figures.alpha.value,
        "agreement_cases": figures.alpha.n,
        "accuracy": accuracy.value if accuracy else None,
        "accuracy_low": accuracy.low if accuracy else None,
        "accuracy_high": accuracy.high if accuracy else None,
        "last_fill_timestamp_seconds": figures.filled.timestamp() if figures.filled else None,
    }
