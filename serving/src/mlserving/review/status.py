"""The figures of a review queue as a person reads them in a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from mlserving.review.agreement import FEW, Figure, Share
from mlserving.review.figures import Figures


def as_text(figures: Figures) -> str:
    """What waits, who did what, how far people agree, how often the model is right."""
    return "\n".join([*_waiting(figures), *_people(figures), *_agreement(figures), *_confirmed(figures)])


def _waiting(figures: Figures) -> Iterator[str]:
    yield f"{figures.model}: {figures.open_cases} of {figures.cases} cases are open, the oldest chosen {_moment(figures.oldest)}"
    yield f"  {figures.held} held just now, {figures.for_a_lead} wait for a lead, {figures.overdue} overdue, {figures.undelivered} labels on their way"
    if not figures.cases:
        yield f"Nothing was chosen yet: millrace review fill {figures.model}"


def _people(figures: Figures) -> Iterator[str]:
    for each in figures.people:
        said = f"{each.confirmed} confirmed, {each.corrected} corrected, {each.unsure} unsure"
        yield f"  {each.reviewer}: {said}; {each.seconds:.0f} s a case, last {_moment(each.last)}"


def _agreement(figures: Figures) -> Iterator[str]:
    if figures.alpha.n:
        yield f"Agreement: Krippendorff's alpha {_figure(figures.alpha)}"
    for pair, figure in figures.kappas.items():
        yield f"  {' and '.join(pair)}: Cohen's kappa {_figure(figure)}"


def _confirmed(figures: Figures) -> Iterator[str]:
    if figures.accuracy:
        yield f"The model is right on {_share(figures.accuracy)} of the log, by reviews weighted by what each stands for"
    for label, share in figures.confirmed.items():
        yield f"  {label}: {_share(share)} of what was reviewed"


def _figure(figure: Figure) -> str:
    value = "cannot be said" if figure.value is None else f"{figure.value:.2f}"
    return f"{value} from {figure.n} cases{': few' if figure.n < FEW else ''}"


def _share(share: Share) -> str:
    return f"{share.value:.0%} ({share.low:.0%} to {share.high:.0%}, {share.n} cases)"


def _moment(time: datetime | None) -> str:
    return f"{time:%Y-%m-%d %H:%M} UTC" if time else "never"
