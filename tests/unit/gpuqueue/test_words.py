"""What people who wait are told, and that it can be read back off the pod."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuqueue import words
from gpuqueue.queue import Budget, Grant, Lane, Pod, Queue, Reason, Request, Wait
from gpuqueue.words import Known, clock, gpus, listed, message, ordinal, place_in

NOON = 1_795_262_400.0
"""21 November 2026, 12:00 UTC."""
HOUR = 3600.0
QUEUE = Queue(name="fraud", lanes=(Lane(name="l4", quota=((0.0, 4), (NOON, 8))),))
PLACED = {Reason.FULL, Reason.BEHIND, Reason.WOULD_DELAY, Reason.BUDGET, Reason.LEDGER}


def wait(reason: Reason, *, place: int = 0, of: int = 0, ahead: tuple[str, ...] = (), **detail: object) -> Wait:
    figures = {"gpus": 2, "free": 1, "quota": 4, "pods": 1, "size": 3, "blocked": "istio says no", **detail}
    return Wait(key="k", lane="l4", reason=reason, place=place, of=of, ahead=ahead, detail=figures)


def known(**more: object) -> Known:
    return Known(**{"queue": QUEUE, "now": NOON, **more})  # type: ignore[arg-type]


def ahead(*names: str) -> dict[str, Request]:
    return {
        name: Request(key=name, namespace="fraud", name=name, lane="l4", pods=(Pod(uid=name, gpus=number),), since=0.0)
        for number, name in enumerate(names, start=1)
    }


def test_somebody_in_line_is_told_place_need_start_and_who_is_ahead() -> None:
    told = message(
        wait(Reason.BEHIND, place=3, of=7, ahead=("b", "a")),
        known(names=ahead("a", "b"), starts=(NOON + HOUR, NOON + 30 * HOUR)),
    )
    assert told == (
        "Behind: 3rd of 7 in fraud/l4. It needs 2 GPUs; 1 of 4 are free, and others came first. "
        "Likely start 13:00 UTC, by 2026-11-22 18:00 UTC nine times out of ten. Ahead: b (2 GPUs), a (1 GPU)."
    )


def test_of_a_long_line_the_nearest_are_named_and_the_others_counted() -> None:
    keys = tuple("abcde")
    assert message(wait(Reason.BEHIND, place=21, of=30, ahead=keys), known(names=ahead(*keys))).endswith("c (3 GPUs) and 17 more.")


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        (Reason.TOO_LARGE, "never has more than 8"),
        (Reason.INCOMPLETE, "has 1 of 3 pods"),
        (Reason.BLOCKED, "istio says no"),
        (Reason.NO_LANE, "accelerator=nvidia-l4 (l4)"),
        (Reason.BUDGET, "50 of 40 GPU hours. It begins anew 14:00 UTC"),
        (Reason.LEDGER, "has room for no more"),
        (Reason.CONFUSED, "create them again alike"),
        (Reason.WOULD_DELAY, "could delay the first in line"),
    ],
)
def test_each_reason_says_what_its_reader_can_do_or_expect(reason: Reason, told: str) -> None:
    queue = Queue(name="fraud", lanes=QUEUE.lanes, budget=Budget(gpu_seconds=40 * HOUR, spent=50 * HOUR, hold=True))
    kinds = {"l4": {"accelerator": "nvidia-l4"}, "any": {}}
    assert told in message(wait(reason, place=1, of=1), known(queue=queue, kinds=kinds, budget_ends=NOON + 2 * HOUR))


@given(st.sampled_from(Reason), st.integers(1, 10**6), st.integers(0, 10**6), st.booleans())
def test_every_message_is_a_sentence_from_which_reason_and_place_are_read_back(
    reason: Reason, place: int, behind: int, starts: bool
) -> None:
    place = place if reason in PLACED else 0
    told = message(wait(reason, place=place, of=place + behind), known(starts=(NOON, NOON + 1) if starts else None))
    assert place_in(told) == (reason.value, place)
    assert re.fullmatch(r"\w+: .*(\.|istio says no)", told), "a sentence ends"
    assert "None" not in told
    assert ".." not in told


@given(st.text())
def test_what_is_no_message_of_ours_has_no_place(text: str) -> None:
    reason, place = place_in(text)
    assert place >= 0
    assert reason == "" or text.startswith(f"{reason}: ")


def test_whoever_starts_is_told_so_and_has_no_place() -> None:
    grant = Grant(key="k", namespace="fraud", name="n", lane="l4", pods=(Pod(uid="k", gpus=1),), at=NOON)
    assert place_in(words.started(grant, 90)) == ("Granted", 0)
    assert words.started(grant, 90) == "Granted: 1 GPU of lane l4 after waiting 1m30s."


def test_other_troubles_name_themselves() -> None:
    assert place_in(words.unopened("no")) == (Reason.BLOCKED.value, 0)
    assert place_in(words.no_queue("lost")) == ("NoQueue", 0)


@pytest.mark.parametrize(
    ("number", "said"), [(1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (12, "12th"), (113, "113th"), (121, "121st")]
)
def test_ordinals(number: int, said: str) -> None:
    assert ordinal(number) == said


def test_counts_and_lists() -> None:
    assert [gpus(count) for count in (0, 1, 2, 10**9)] == ["0 GPUs", "1 GPU", "2 GPUs", "1,000,000,000 GPUs"]
    assert listed(["a", "b", "c", "d"]) == "a, b, c and 1 more"
    assert listed(["a"]) == "a"


@given(st.floats(allow_nan=False))
def test_there_is_no_moment_that_cannot_be_said(moment: float) -> None:
    """A run limit of a million hours is well formed, and what starts after it is expected in the year 116,000."""
    assert clock(moment, NOON).endswith(" UTC")
