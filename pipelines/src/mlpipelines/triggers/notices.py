"""What people are told of a training and of what becomes of it, and how it looks: in Slack, in a mail, as JSON. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from email.message import EmailMessage
from enum import StrEnum
from typing import Any

from mlpipelines.evaluation.verdict import Verdict, figure
from mlpipelines.triggers.starts import Ended

_LONGEST = 2800
"""Characters of a section; Slack refuses 3,000."""
_MOST_CHECKS = 12
_MARKS = {True: "✔", False: "✘", None: "–"}


class Event(StrEnum):
    """What happened."""

    STARTED = "training started"
    BLESSED = "model blessed"
    CANARY = "canary started"
    WAITS = "rollout waits"
    APPROVAL = "approval needed"
    DEPLOYED = "deployed"
    ROLLOUT_ABORTED = "rollout aborted"
    ROLLED_BACK = "rolled back"
    REJECTED = "model rejected"
    UNCHANGED = "nothing new"
    DATA_REJECTED = "data rejected"
    ABORTED = "training aborted"
    FAILED = "training failed"
    ENDED = "training ended"


_EVENTS = {
    "unchanged": Event.UNCHANGED,
    "interrupted": Event.ABORTED,
    "killed": Event.ABORTED,
    "canceled": Event.ABORTED,
    "succeeded": Event.ENDED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """One message about one run."""

    event: str
    model: str
    run: str
    text: str
    """What happened and why, in a sentence or two."""
    checks: Sequence[Sequence[str]] = ()
    """Rows of the verdict: mark, what was checked, challenger, opponent, rule."""
    heads: Sequence[str] = ("", "check", "challenger", "opponent", "rule")
    """What stands above them."""
    link: str = ""
    """Where to look: a page or a folder."""

    @property
    def title(self) -> str:
        """One line."""
        return f"{self.model}: {self.event}"


def of_start(model: str, run: str, reason: str, link: str) -> Notice:
    """A run goes."""
    return Notice(event=Event.STARTED, model=model, run=run, text=f"Retrained because {reason}.", link=link)


def of_end(model: str, run: str, reason: str, ended: Ended, verdict: Verdict | None, *, onward: str = "") -> Notice:
    """A run has ended.

    Args:
        model: its name.
        run: its name.
        reason: why it was started.
        ended: how it ended.
        verdict: what it was judged by, where it came so far.
        onward: what comes next for a blessed version; empty where publishing it is all.
    """
    event = _event(ended, verdict, onward)
    published = f"Published as version {ended.facts.get('version', '?')}. {verdict.title if verdict else ''}"
    said = {
        Event.DEPLOYED: published,
        Event.BLESSED: f"{published.removesuffix('.')}. {onward}",
        Event.REJECTED: f"{verdict.title if verdict else ''}. The champion stays.",
        Event.UNCHANGED: "The model is the champion already.",
    }.get(event, ended.trouble or f"It ended as {ended.outcome}.")
    checks = [_row(check) for check in _chosen(verdict)] if verdict else []
    text = f"{said.strip()} Retrained because {reason}."
    return Notice(event=event, model=model, run=run, text=text, checks=checks, link=str(ended.facts.get("page", "")))


def as_slack(notice: Notice) -> dict[str, Any]:
    """The body for an incoming webhook: blocks, and a line for the notification on a phone."""
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": {"type": "plain_text", "text": notice.title[:150]}},
        {"type": "section", "text": {"type": "mrkdwn", "text": _escaped(notice.text)}},
    ]
    if notice.checks:
        blocks.append({"type": "section", "text": {"type": "mrkdwn", "text": f"```{_escaped(_table(notice))}```"}})
    link = f" · <{notice.link}|look>" if notice.link.startswith("http") else f" · {_escaped(notice.link)}" if notice.link else ""
    blocks.append({"type": "context", "elements": [{"type": "mrkdwn", "text": f"run {_escaped(notice.run)}{link}"}]})
    return {"text": _escaped(notice.title), "blocks": blocks}


def as_mail(notice: Notice, sender: str, to: Sequence[str]) -> EmailMessage:
    """A plain mail, with an id by which a mail that came twice is seen to be one."""
    mail = EmailMessage()
    mail["Subject"], mail["From"], mail["To"] = notice.title, sender, ", ".join(to)
    mail["Message-ID"] = f"<{notice.run}.{notice.event.replace(' ', '-')}@{sender.rpartition('@')[2]}>"
    parts = [notice.text, _table(notice), f"Run: {notice.run}\n{notice.link}".rstrip()]
    mail.set_content("\n\n".join(part for part in parts if part) + "\n")
    return mail


def as_json(notice: Notice) -> dict[str, Any]:
    """For programs."""
    return {"title": notice.title, **asdict(notice)}


def from_json(told: Mapping[str, Any]) -> Notice:
    """What `as_json` wrote."""
    return Notice(**{name: value for name, value in told.items() if name != "title"})


def _event(ended: Ended, verdict: Verdict | None, onward: str) -> Event:
    if ended.outcome == "blessed":
        return Event.BLESSED if onward else Event.DEPLOYED
    if ended.outcome == "rejected":
        return Event.REJECTED if verdict is not None else Event.DATA_REJECTED
    return _EVENTS.get(ended.outcome, Event.FAILED)


def _chosen(verdict: Verdict) -> Sequence[Any]:
    """The checks that fit: those that failed first."""
    return sorted(verdict.checks, key=lambda check: check.passed is not False)[:_MOST_CHECKS]


def _row(check: Any) -> list[str]:
    return [_MARKS[check.passed], check.subject, check.challenger_text, figure(check.opponent), check.rule]


def _table(notice: Notice) -> str:
    if not notice.checks:
        return ""
    lines = [notice.heads, *notice.checks]
    widths = [max(len(line[place]) for line in lines) for place in range(len(lines[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)


def _escaped(text: str) -> str:
    """As Slack wants it, and no longer than it takes. Escaping makes text longer, so it is cut afterwards, never within an escape."""
    pieces = [{"&": "&amp;", "<": "&lt;", ">": "&gt;"}.get(letter, letter) for letter in text[:_LONGEST]]
    while sum(map(len, pieces)) > _LONGEST:
        del pieces[-50:]
    return "".join(pieces)
