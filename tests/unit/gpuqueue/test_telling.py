"""Whom to tell next, and whom not again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gpuqueue.controller.messenger import Budget
from gpuqueue.telling import Note, due, step
from gpuqueue.words import ordinal

TOP = 20


def waiting(name: str, place: int, last: str | None = None, reason: str = "Behind", **more: object) -> Note:
    text = f"{reason}: {ordinal(place)} of 99 in q/l4." if place else f"{reason}: it waits."
    values = {"uid": name, "namespace": "team", "name": name, "admitted": False, "message": text, "last": last}
    return Note(**{**values, **more})  # type: ignore[arg-type]


def at(place: int, reason: str = "Behind") -> str:
    return waiting("x", place, reason=reason).message


def started(name: str, last: str | None = "Behind: 1st of 2 in q/l4.", **more: object) -> Note:
    return Note(uid=name, namespace="team", name=name, admitted=True, message="Granted: 1 GPU of lane l4.", last=last, **more)  # type: ignore[arg-type]


def told(*notes: Note) -> list[str]:
    return [note.name for note in due(notes, TOP)]


def test_the_most_urgent_come_first() -> None:
    notes = [
        started("runs-already", running=True),
        waiting("moved", 3, at(5)),
        waiting("new-far", 90),
        waiting("new-near", 2),
        waiting("other-reason", 1, at(4), reason="QuotaInUse"),
        started("may-start"),
    ]
    assert told(*notes) == ["may-start", "other-reason", "new-near", "new-far", "moved", "runs-already"]


def test_a_place_is_told_again_only_when_it_is_another_step_near_the_front() -> None:
    assert told(waiting("near", 2, at(4))) == ["near"]
    assert told(waiting("same-step", 6, at(9))) == []
    assert told(waiting("too-far", 40, at(90))) == []
    assert told(waiting("sent-back", 12, at(3))) == ["sent-back"]


def test_a_likely_start_is_told_once_when_it_becomes_known_near_the_front() -> None:
    """The first word comes within a second, the first estimate after some: it must not be for those alone who ask."""
    now_known = at(3) + " Likely start 13:00 UTC, by 14:00 UTC nine times out of ten."
    later = now_known.replace("13:00", "13:05")
    assert told(waiting("knows-now", 3, at(3), message=now_known)) == ["knows-now"]
    assert told(waiting("knew-before", 3, now_known, message=later)) == []
    assert told(waiting("far-back", 90, at(90), message=now_known.replace("3rd", "90th"))) == []


def test_who_never_waited_is_not_told_that_the_wait_is_over() -> None:
    assert told(started("at-once", last=None)) == []
    assert told(started("told-already", last="Granted: 1 GPU of lane l4.", last_admitted=True)) == []


def test_who_waits_again_after_a_grant_is_told_at_once() -> None:
    assert told(waiting("again", 50, "Granted: 1 GPU of lane l4.", last_admitted=True)) == ["again"]


NOTES = st.builds(
    lambda number, place, before, admitted, was_admitted: waiting(
        f"n{number}", place, None if before is None else at(before), admitted=admitted, last_admitted=was_admitted and before is not None
    ),
    st.integers(0, 99),
    st.integers(0, 200),
    st.none() | st.integers(0, 200),
    st.booleans(),
    st.booleans(),
)


@given(st.lists(NOTES, max_size=20))
def test_nothing_is_told_twice(notes: list[Note]) -> None:
    """Once the message is on the pod, and as long as nothing moves, there is nothing to tell."""
    written = [
        Note(
            uid=note.uid,
            namespace=note.namespace,
            name=note.name,
            admitted=note.admitted,
            message=note.message,
            last=note.message,
            last_admitted=note.admitted,
        )
        for note in due(notes, TOP)
    ]
    assert due(written, TOP) == []


@given(st.integers(2, 5000))
def test_a_line_that_moves_up_one_by_one_costs_a_handful_of_writes_for_each_pod(place: int) -> None:
    last, writes = at(place), 0
    for now in range(place - 1, 0, -1):
        if told(waiting("x", now, last)):
            last, writes = at(now), writes + 1
    assert writes <= step(TOP)
    assert last == at(min(place, 1)), "who comes to the front knows it"


def test_a_budget_allows_a_burst_and_then_its_rate() -> None:
    now = [100.0]
    budget = Budget(5.0, clock=lambda: now[0])
    assert sum(budget.take() for _ in range(100)) == 20, "four seconds are saved up"
    now[0] += 1
    assert sum(budget.take() for _ in range(100)) == 5
    now[0] += 3600
    assert sum(budget.take() for _ in range(100)) == 20, "and never more than that"


def test_a_budget_of_nothing_allows_nothing() -> None:
    now = [0.0]
    budget = Budget(0.0, clock=lambda: now[0])
    now[0] += 1e6
    assert not budget.take()
