"""A lane run ahead says what `decide` would say, asked again at every end and every change of the quota."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from gpuqueue.ahead import Line, easy_starts, strict_starts
from gpuqueue.decide import decide
from gpuqueue.queue import FOREVER, Grant, Lane, Order, Pod, Queue, Request

NOW = 100.0
# So few that things often happen at the same moment.
LIMITS = st.none() | st.integers(1, 9).map(float)
RUNS = st.integers(1, 9).map(float)
HELD = st.lists(st.tuples(st.integers(1, 4), LIMITS, st.integers(0, 5), RUNS), max_size=5)
WAITING = st.lists(st.tuples(st.integers(1, 6), LIMITS, RUNS), max_size=12)
LATER = st.lists(st.tuples(st.integers(1, 30), st.integers(0, 8)), max_size=3, unique_by=lambda step: step[0]).map(sorted)


def asked_again(queue: Queue, lane: Lane, left: dict[str, float], runs: dict[str, float]) -> list[float]:
    """The starts by `decide` itself. Before each answer the lane's steps that are over are dropped, as a calendar does."""
    ends = {key: NOW + seconds for key, seconds in left.items()}
    starts: dict[str, float] = {}
    moments = {NOW, *ends.values(), *(moment for moment, _ in lane.quota[1:])}
    while moments:
        now = min(moments)
        moments = {moment for moment in moments if moment > now}
        kept = tuple(grant for grant in queue.ledger if ends[grant.key] > now)
        in_force = ((now, lane.at(now)), *(step for step in lane.quota if step[0] > now))
        waiting = tuple(request for request in queue.waiting if request.key not in starts)
        queue = replace(queue, ledger=kept, waiting=waiting, lanes=(replace(lane, quota=in_force),))
        outcome = decide([queue], now, explain=False)[queue.name]
        queue = replace(queue, ledger=outcome.ledger)
        for grant in outcome.granted:
            starts[grant.key] = now
            ends[grant.key] = now + runs[grant.key]
            moments.add(ends[grant.key])
    return [starts.get(key, FOREVER) for key in runs]


@given(st.sampled_from(["strict", "easy"]), HELD, WAITING, st.integers(6, 8), LATER)
@settings(max_examples=800, deadline=None)
def test_it_starts_everybody_when_decide_would(
    order: Order,
    held: list[tuple[int, float | None, int, float]],
    waiting: list[tuple[int, float | None, float]],
    quota: int,
    later: list[tuple[int, int]],
) -> None:
    steps = tuple((NOW + after, gpus) for after, gpus in later)
    lane = Lane(name="l4", quota=((0.0, quota), *steps, (NOW + 100, 8)))  # in the end there is room for everybody
    ledger = tuple(
        Grant(key=f"g{i}", namespace="n", name=f"g{i}", lane="l4", pods=(Pod(uid=f"g{i}", gpus=gpus),), at=NOW - ago, limit=limit)
        for i, (gpus, limit, ago, _) in enumerate(held)
    )
    requests = tuple(
        Request(
            key=f"w{i:02}", namespace="n", name=f"w{i:02}", lane="l4", pods=(Pod(uid=f"w{i}", gpus=gpus),), since=float(i), run_limit=limit
        )
        for i, (gpus, limit, _) in enumerate(waiting)
    )
    line = Line(
        lane=lane,
        now=NOW,
        held=tuple((grant.gpus, grant.ends) for grant in ledger),
        waiting=tuple((request.gpus, request.run_limit or FOREVER) for request in requests),
    )
    remaining, runs = [seconds for *_, seconds in held], [seconds for *_, seconds in waiting]
    queue = Queue(name="q", lanes=(lane,), order=order, ledger=ledger, waiting=requests)
    left = {grant.key: seconds for grant, seconds in zip(ledger, remaining, strict=True)}
    by_decide = asked_again(queue, lane, left, {request.key: run for request, run in zip(requests, runs, strict=True)})
    assert (strict_starts if order == "strict" else easy_starts)(line, remaining, runs) == by_decide


def test_what_never_ends_holds_its_gpus_for_ever() -> None:
    line = Line(lane=Lane(name="l4", quota=((0.0, 2),)), now=NOW, held=((2, FOREVER),), waiting=((1, 5.0), (1, 5.0)))
    for ahead in (strict_starts, easy_starts):
        assert ahead(line, [FOREVER], [1.0, 1.0]) == [FOREVER, FOREVER]
        assert ahead(line, [3.0], [FOREVER, 1.0]) == [NOW + 3, NOW + 3]
