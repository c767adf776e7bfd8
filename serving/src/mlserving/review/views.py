"""From what the queue says to what a person reads: templates, and values as text."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import jinja2
from starlette.responses import HTMLResponse

from mlserving.review.agreement import FEW
from mlserving.review.cases import Case, Verdict

LONGEST_VALUE = 4000
_WORDS = {
    "uncertain": "The model is less sure here than elsewhere",
    "random": "Drawn at random",
    "rare": "Drawn at random from a class that is seldom predicted",
}
NOTES: Mapping[str, str] = {
    Verdict.CONFIRM: "Saved: confirmed.",
    Verdict.CORRECT: "Saved: corrected.",
    Verdict.UNSURE: "Saved: unsure. A lead will look at it.",
    Verdict.SKIP: "Skipped. Somebody else will look at it.",
    Verdict.UNDO: "Taken back. Here it is again.",
    "nothing": "There is nothing to take back.",
    "over": "Your session is over. Nothing is lost but what you had not saved; sign in to go on.",
    "out": "You are signed out. The case that you held is free again.",
    "wrong": "This name and token do not go together.",
    "too-many": "Too many wrong tokens. Wait five minutes, then try again.",
}
"""What a redirect may have to say: it names one of these, so nobody can put words of their own on the page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownCase:
    """A case as the page shows it."""

    case: Case
    rows: list[tuple[str, str | None]]
    percent: str | None
    why: str


def show_case(case: Case) -> ShownCase:
    """The case, in words."""
    percent = None if case.confidence is None else f"{math.floor(case.confidence * 100)} %"  # 99.9 % is not certain
    rows = [(name, None if value is None else value_text(value)) for name, value in case.features.items()]
    return ShownCase(case=case, rows=rows, percent=percent, why=_WORDS.get(case.why, case.why))


def value_text(value: Any) -> str:
    """A feature's value as a person reads it."""
    match value:
        case None:
            text = "missing"
        case bool():
            text = "yes" if value else "no"
        case float():
            text = f"{value:.6g}" if abs(value) < 1e15 else repr(value)  # noqa: PLR2004  beyond it digits are noise
        case list():
            text = ", ".join(value_text(each) for each in value)
        case dict():
            text = json.dumps(value, ensure_ascii=False)
        case _:
            text = str(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]} … ({len(text)} characters)"


def render(template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """A page."""
    return HTMLResponse(_TEMPLATES.get_template(template).render(few=FEW, **values), status)


def _moment(time: datetime | None) -> str:
    return "–" if time is None else f"{time:%Y-%m-%d %H:%M} UTC"


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %"


def _figure(value: float | None) -> str:
    return "cannot be said" if value is None else f"{value:.2f}"


_TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("mlserving.review", "pages"),
    autoescape=True,
    undefined=jinja2.ChainableUndefined,  # a page shows what it was given: most parts are there only sometimes
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters |= {"moment": _moment, "percent": _percent, "figure": _figure}
