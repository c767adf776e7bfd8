"""Lines of a history: what is written is read back, and what cannot be read is skipped and counted."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuqueue.history import Past, coverage, line_of, past_of, read_history

WORDS = st.text(max_size=12)
MOMENTS = st.integers(0, 10**9)
ODD = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just([])
LIKE_A_LINE = st.lists(ODD, min_size=11, max_size=13).map(lambda row: json.dumps([1, *row]))


@st.composite
def some_pasts(draw: st.DrawFn) -> Past:
    since, wait, ran = draw(MOMENTS), draw(MOMENTS), draw(MOMENTS)
    queue, lane, namespace, name, family = (draw(WORDS) for _ in range(5))
    told = [draw(st.none() | MOMENTS) for _ in range(2)]
    return Past(
        queue=queue,
        lane=lane,
        namespace=namespace,
        name=name,
        family=family,
        gpus=draw(st.integers(0, 10**6)),
        since=float(since),
        at=float(since + wait),
        ended=float(since + wait + ran),
        limit=draw(st.none() | MOMENTS.map(float)),
        told_p50=None if told[0] is None else float(since + told[0]),
        told_p90=None if told[1] is None else float(since + told[1]),
    )


def past(wait: float = 0.0, p50: float | None = None, p90: float | None = None, at: float = 1000.0) -> Past:
    since = at - wait
    told_p50, told_p90 = (None if told is None else since + told for told in (p50, p90))
    return Past(
        queue="q",
        lane="l4",
        namespace="n",
        name="x",
        family="",
        gpus=1,
        since=since,
        at=at,
        ended=at + 60,
        told_p50=told_p50,
        told_p90=told_p90,
    )


@given(some_pasts())
def test_what_is_written_is_read_back_and_is_one_line(one: Past) -> None:
    line = line_of(one)
    assert past_of(line) == one
    assert len(line.splitlines()) == 1


def test_a_line_is_short_and_begins_with_its_version() -> None:
    assert line_of(past(wait=60, p50=30.4, p90=90)) == '[1,"q","l4","n","x","",1,940,60,60,null,30,90]'


def test_where_two_clocks_contradict_each_other_the_line_can_still_be_read() -> None:
    found = past_of(line_of(replace(past(), since=1000.0, at=998.0, ended=997.0)))
    assert (found.since, found.wait, found.ran) == (1000.0, 0.0, 0.0)


GOOD = json.loads(line_of(past(wait=60, p50=30, p90=90)))


@pytest.mark.parametrize(
    "broken",
    [
        "no json",
        "{}",
        "[]",
        "[" * 100_000,
        json.dumps([2, *GOOD[1:]]),
        json.dumps(GOOD[:-1]),
        json.dumps([*GOOD[:6], "1", *GOOD[7:]]),
        json.dumps([*GOOD[:6], 1.5, *GOOD[7:]]),
        json.dumps([*GOOD[:6], True, *GOOD[7:]]),
        json.dumps([*GOOD[:8], -1, *GOOD[9:]]),
        json.dumps([*GOOD[:7], float("nan"), *GOOD[8:]]),
        json.dumps([*GOOD[:-1], "soon"]),
        json.dumps([1, 2, *GOOD[2:]]),
        line_of(past())[:-5],
    ],
)
def test_a_broken_line_is_skipped_and_counted_and_the_rest_is_read(broken: str) -> None:
    found = read_history([line_of(past()), broken, "", line_of(past(wait=5))])
    assert found.pasts == (past(), past(wait=5))
    assert found.broken == 1


@given(st.lists(st.text(max_size=20) | LIKE_A_LINE, max_size=8))
def test_no_line_is_fatal(lines: list[str]) -> None:
    found = read_history(lines)
    assert len(found.pasts) + found.broken == sum(bool(line.strip()) for line in lines)


def test_coverage_counts_those_who_were_told() -> None:
    pasts = [
        past(wait=100, p50=100, p90=200),
        past(wait=150, p50=100, p90=200),
        past(wait=300, p50=100, p90=200),
        past(wait=50, p50=100, p90=200),
        past(wait=50),
        past(wait=0),
    ]
    found = coverage(pasts)
    assert found is not None
    assert (found.told, found.within_p50, found.within_p90, found.median_error) == (4, 0.5, 0.75, 50)


def test_coverage_looks_at_those_granted_in_its_window() -> None:
    pasts = [past(wait=10, p50=20, p90=30, at=at) for at in (100.0, 200.0, 300.0)]
    found = coverage(pasts, 200.0, 300.0)
    assert found is not None
    assert found.told == 1
    assert coverage(pasts, 400.0) is None
    assert coverage([replace(pasts[0], told_p90=None)]) is None
