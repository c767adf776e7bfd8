"""How a rollout looks in a terminal: what answers, how far the step is, each comparison with its interval, what comes next and when."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mlserving.errors import ServingError
from mlserving.rollout.actions import Room
from mlserving.rollout.decide import next_look
from mlserving.rollout.document import Desired, Past
from mlserving.rollout.observation import Observation
from mlserving.rollout.plan import JUDGED, Check, Judgement, Phase, Rollout, Verdict

_COLOURS = {Verdict.OK: "green", Verdict.UNCLEAR: "yellow", Verdict.WORSE: "red"}
_SHOWN = 6


def seen_now(room: Room, desired: Desired) -> Observation | None:
    """What is counted of the step that is under way; None where nothing is, or nobody answers."""
    rollout = desired.rollout
    if rollout is None or rollout.phase not in JUDGED or rollout.step_started is None:
        return None
    try:
        return room.source.observe(rollout, room.clock())
    except ServingError:
        return None


def show(desired: Desired, seen: Observation | None, now: float) -> None:
    """Print it."""
    _console().print(_drawn(desired, seen, now))


@contextmanager
def live() -> Iterator[Callable[[Desired, Observation | None, float], None]]:
    """Draw it again and again in one place; without a terminal, one after the other."""
    console = _console()
    if not console.is_terminal:
        yield show
        return
    with Live(console=console, auto_refresh=False) as drawn:
        yield lambda desired, seen, now: drawn.update(_drawn(desired, seen, now), refresh=True)


def show_history(model: str, past: Sequence[Past]) -> None:
    """Rollouts as a table."""
    if not past:
        _console().print(f"No rollout of {model} was ever started.")
        return
    table = _table("started (UTC)", "by", "version", "ended as", "after", "why it was started", "why it ended so")
    for each in past:
        table.add_row(
            _utc(each.started),
            each.started_by,
            f"{each.from_version} → {each.to_version}",
            _words(each.phase),
            _seconds(each.ended - each.started),
            each.reason,
            each.because,
        )
    _console().print(table)


def moment(when: float | None) -> str:
    """A time of today in the reader's zone."""
    return time.strftime("%H:%M:%S", time.localtime(when)) if when is not None else "—"


def _drawn(desired: Desired, seen: Observation | None, now: float) -> Group:
    parts: list[RenderableType] = [Text(f"{desired.model}, revision {desired.revision}", style="bold"), _tracks(desired, seen)]
    if desired.rollout is None:
        parts.append(Text("No rollout was ever started: millrace rollout start PROJECT_DIR"))
        return Group(*parts)
    rollout = desired.rollout
    head = f"{rollout.from_version} → {rollout.to_version}, {_words(rollout.phase)}; started {_utc(rollout.started)} UTC by {rollout.started_by}"
    parts += [Text(""), Text(head + (f": {rollout.reason}" if rollout.reason else ""), style="bold"), _steps(rollout)]
    looked = next((each for each in reversed(rollout.judgements) if each.checks), None)
    if looked:
        parts += [
            Text(""),
            Text(f"Last look at {moment(looked.time)}, on {looked.canary_requests:,} requests of the canary"),
            _checks(looked.checks),
        ]
    parts += [Text(""), _decisions(rollout.judgements[-_SHOWN:]), Text(""), Text(_next(rollout, seen, now), style="bold")]
    return Group(*parts)


def _tracks(desired: Desired, seen: Observation | None) -> Table:
    table = _table("track", "version", "weight", "requests in this step", "failed")
    for track, wanted in desired.tracks.items():
        counted = (seen.canary if track == "canary" else seen.stable) if seen else None
        figures = (f"{counted.requests:,}", f"{counted.errors:,}") if counted else ("", "")
        table.add_row(track.value, str(wanted.version), f"{wanted.weight:g} %", *figures)
    return table


def _steps(rollout: Rollout) -> Text:
    line = Text("steps  ")
    for index, share in enumerate(rollout.plan.steps):
        here = index == rollout.step and rollout.phase in JUDGED
        passed = index < rollout.step or rollout.promoted is not None
        line.append(f" {share:g} % ", style="reverse" if here else "green" if passed else "dim")
    return line


def _checks(checks: Sequence[Check]) -> Table:
    table = _table("", "verdict", "what was seen")
    for check in checks:
        table.add_row(check.name, Text(check.verdict.value, style=_COLOURS[check.verdict]), check.says)
    return table


def _decisions(judgements: Sequence[Judgement]) -> Table:
    table = _table("at", "share", "canary", "stable", "decision", "why")
    for each in judgements:
        counts = (f"{each.canary_requests:,}", f"{each.stable_requests:,}")
        table.add_row(moment(each.time), f"{each.weight:g} %", *counts, each.decision, each.reason)
    return table


def _next(rollout: Rollout, seen: Observation | None, now: float) -> str:
    plan = rollout.plan
    match rollout.phase:
        case Phase.STARTING:
            return "Next: the canary is being loaded; then its first step begins."
        case Phase.PROMOTING:
            return f"Next: version {rollout.from_version} is let go at {moment(rollout.warm_until)}. Until then: millrace rollout rollback {rollout.model}"
        case Phase.DONE | Phase.ABORTED | Phase.ROLLED_BACK:
            return f"Over at {moment(rollout.ended)}: {rollout.ended_because}"
        case Phase.AWAITING_APPROVAL if not rollout.approved:
            return f"Next: somebody approves: millrace rollout approve {rollout.model}"
        case _ if rollout.step_started is None or seen is None:
            return "Next: the share comes into force, and counting begins."
    have, need = seen.canary.requests, max(plan.min_requests, plan.first_look)
    left = max(0.0, rollout.step_started + plan.min_seconds - now)
    onward = f"{plan.steps[rollout.step + 1]:g} %" if rollout.step + 1 < plan.judged else "the promotion"
    last = f"a person is asked at {moment(rollout.step_started + plan.max_seconds)}"
    return f"Next: {onward}, after {have:,} of {need:,} requests and {left:,.0f} s more; a look at {next_look(plan, rollout):,} requests; {last}."


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in columns:
        table.add_column(name, overflow="fold")
    return table


def _words(phase: Phase) -> str:
    return phase.value.replace("_", " ")


def _utc(when: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(when))


def _seconds(seconds: float) -> str:
    return f"{seconds:,.0f} s"


def _console() -> Console:
    return Console(highlight=False, width=None if sys.stdout.isatty() else 160, soft_wrap=False)
