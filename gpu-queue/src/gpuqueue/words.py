"""Why somebody waits, in a sentence: what the pod's condition, events, `gpuq why`, the API and the page all say alike.

A message begins with the reason's stable name and the place, so that what was told last can be read off the pod itself (`place_in`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gpuqueue.durations import moment_of, words_of
from gpuqueue.queue import MOST_PODS, Grant, Queue, Reason, Request, Wait

_NAMED = 3
_PLACE = re.compile(r"(\w+): (?:(\d+)(?:st|nd|rd|th) of \d+)?")
_TEENS = range(10, 20)
_START = "Likely start"


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What a sentence may need beside the wait itself."""

    queue: Queue
    now: float
    starts: tuple[float, float] | None = None
    """When it is as likely as not to have started, and when nine times out of ten; seconds since the epoch."""
    kinds: Mapping[str, Mapping[str, str]] | None = None
    """By lane, the node labels that put a pod into it."""
    budget_ends: float | None = None
    names: Mapping[str, Request] | None = None
    """Those that wait, by key."""


def message(wait: Wait, known: Known) -> str:
    """The whole message."""
    return f"{wait.reason.value}: {sentence(wait, known)}"


def sentence(wait: Wait, known: Known) -> str:
    """What keeps it waiting, when that may end, and who is ahead."""
    parts = [_cause(wait, known)]
    if wait.place and known.starts:
        likely, surely = known.starts
        parts.append(f"{_START} {clock(likely, known.now)}, by {clock(surely, known.now)} nine times out of ten.")
    if wait.ahead:
        parts.append(f"Ahead: {_ahead(wait, known)}.")
    return " ".join(parts)


def place_in(text: str) -> tuple[str, int]:
    """The reason and the place that a message says; empty and 0 for what is no message of ours."""
    found = _PLACE.match(text)
    return (found[1], int(found[2] or 0)) if found else ("", 0)


def tells_start(text: str) -> bool:
    """Whether a message says when it may start: estimates come a few seconds after a pod."""
    return _START in text


def started(grant: Grant, waited: float) -> str:
    """What is said once it may start."""
    return f"Granted: {gpus(grant.gpus)} of lane {grant.lane} after waiting {words_of(waited)}."


def unopened(refusal: str) -> str:
    """What is said while a gate stays shut after the grant."""
    return f"{Reason.BLOCKED.value}: it is granted and holds its GPUs, but its gate cannot be opened: {refusal}"


def no_queue(namespace: str) -> str:
    """What is said to a pod whose namespace nobody looks after."""
    return (
        f"NoQueue: namespace {namespace} has label gpu-queue.dev/managed=true but is in no GpuQueue, so nothing lets this pod start. "
        f"Add it to spec.namespaces of one: kubectl get gq"
    )


def _cause(wait: Wait, known: Known) -> str:  # noqa: C901, PLR0911 (one sentence for each reason)
    detail, lane = wait.detail, f"{known.queue.name}/{wait.lane}"
    free, quota, asked = int(str(detail["free"])), int(str(detail["quota"])), int(str(detail["gpus"]))
    line = f"{ordinal(wait.place)} of {wait.of} in {lane}" if wait.place else ""
    match wait.reason:
        case Reason.FULL:
            return f"{line}. It needs {gpus(asked)}; {free} of {quota} are free."
        case Reason.BEHIND:
            return f"{line}. It needs {gpus(asked)}; {free} of {quota} are free, and others came first."
        case Reason.WOULD_DELAY:
            return f"{line}. It needs {gpus(asked)}; {free} of {quota} are free, but by its run limit it could delay the first in line."
        case Reason.BUDGET:
            return f"{line}. {_budget(known)}"
        case Reason.INCOMPLETE:
            return f"its group has {detail['pods']} of {detail['size']} pods; it starts when all are there."
        case Reason.CONFUSED:
            return (
                "the pods of its group do not agree on how many they are or on their lane, or are more than they say "
                f"or than {MOST_PODS:,}; create them again alike."
            )
        case Reason.TOO_LARGE:
            most = max((each.largest for each in known.queue.lanes if each.name == wait.lane), default=0)
            return f"it needs {gpus(asked)} and {lane} never has more than {most}. It is passed by; ask for fewer, or for a larger quota."
        case Reason.NO_LANE:
            return f"it names no kind of GPU that queue {known.queue.name} has. Give it a node selector: {_kinds(known.kinds or {})}."
        case Reason.LEDGER:
            return (
                f"{line}. It needs {gpus(asked)}; {free} of {quota} are free, but queue {known.queue.name} holds {len(known.queue.ledger):,} grants "
                "and has room for no more: it starts when some have ended. Give some namespaces a queue of their own: kubectl get gq."
            )
        case Reason.BLOCKED:
            return f"its gate cannot be opened: {detail['blocked']}"


def _budget(known: Known) -> str:
    budget = known.queue.budget
    if budget is None:
        return "The budget is spent."
    ends = f" It begins anew {clock(known.budget_ends, known.now)}." if known.budget_ends else ""
    return f"The budget is spent: {budget.spent / 3600:,.0f} of {budget.gpu_seconds / 3600:,.0f} GPU hours.{ends}"


def _kinds(kinds: Mapping[str, Mapping[str, str]]) -> str:
    said = [f"{', '.join(f'{key}={value}' for key, value in match.items())} ({lane})" for lane, match in kinds.items() if match]
    return " or ".join(said) or "ask whoever wrote the queue"


def _ahead(wait: Wait, known: Known) -> str:
    names = known.names or {}
    first = [f"{names[key].name} ({gpus(names[key].gpus)})" for key in wait.ahead[:_NAMED] if key in names]
    more = wait.place - 1 - len(first)
    return ", ".join(first) + (f" and {more} more" if more > 0 and first else f"{more}" if more > 0 else "")


def gpus(count: int) -> str:
    """`1 GPU`, `4 GPUs`"""
    return f"{count:,} GPU" + ("" if count == 1 else "s")


def ordinal(number: int) -> str:
    """`1st`, `2nd`, `3rd`, `11th`"""
    suffix = "th" if number % 100 in _TEENS else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{suffix}"


def clock(moment: float, now: float) -> str:
    """A moment as people say it, in UTC: the time today, with the date on other days."""
    then, today = moment_of(moment), moment_of(now)
    return f"{then:%H:%M} UTC" if then.date() == today.date() else f"{then:%Y-%m-%d %H:%M} UTC"


def listed(things: Sequence[str], most: int = _NAMED) -> str:
    """The first few, and how many more."""
    more = len(things) - most
    return ", ".join(things[:most]) + (f" and {more} more" if more > 0 else "")
