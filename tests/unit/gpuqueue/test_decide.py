"""Who may start: examples that read like the rule, and what holds whatever comes."""

from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gpuqueue.decide import Outcome, decide, expected_start
from gpuqueue.queue import FOREVER, LEDGER_BYTES, MOST_PODS, Budget, Grant, Lane, Pod, Queue, Reason, Request

NOW = 1000.0


def lane(quota: int = 8, name: str = "l4", later: tuple[tuple[float, int], ...] = ()) -> Lane:
    return Lane(name=name, quota=((0.0, quota), *later))


def request(name: str, gpus: int = 1, since: float = 0.0, **more: object) -> Request:
    values = {"key": name, "namespace": "team", "name": name, "lane": "l4", "pods": (Pod(uid=name, gpus=gpus),), "since": since}
    return Request(**{**values, **more})  # type: ignore[arg-type]


def running(name: str, gpus: int, limit: float | None = None, at: float = 0.0, **more: object) -> Grant:
    values = {"key": name, "namespace": "team", "name": name, "lane": "l4", "pods": (Pod(uid=name, gpus=gpus),), "at": at, "limit": limit}
    return Grant(**{**values, **more})  # type: ignore[arg-type]


def queue(*waiting: Request, **more: object) -> Queue:
    return Queue(**{"name": "q", "lanes": (lane(),), "waiting": waiting, **more})  # type: ignore[arg-type]


def outcome(one: Queue, *others: Queue) -> Outcome:
    return decide([one, *others], NOW)[one.name]


def started(found: Outcome) -> list[str]:
    return [grant.key for grant in found.granted]


def reasons(found: Outcome) -> dict[str, Reason]:
    return {wait.key: wait.reason for wait in found.waits}


def test_first_come_first_served_and_a_large_head_holds_the_line() -> None:
    found = outcome(queue(request("c", 1, 3), request("a", 4, 1), request("b", 6, 2)))
    assert started(found) == ["a"]
    assert [(wait.key, wait.place, wait.of, wait.ahead) for wait in found.waits] == [("b", 1, 2, ()), ("c", 2, 2, ("b",))]
    assert reasons(found) == {"b": Reason.FULL, "c": Reason.BEHIND}


def test_what_came_in_the_same_second_is_ordered_by_name() -> None:
    assert started(outcome(queue(request("b", 5), request("a", 5)))) == ["a"]


def test_backfill_lets_a_short_job_pass_and_a_small_one_that_the_head_can_spare() -> None:
    ledger = (running("r", 6, limit=2000.0),)  # ends at 2000; then 8 are free, the head takes 7
    waiting = (
        request("head", 7, 1),
        request("long", 2, 2, run_limit=5000.0),
        request("short", 1, 3, run_limit=900.0),
        request("spare", 1, 4, run_limit=5000.0),
    )
    found = outcome(queue(*waiting, ledger=ledger, order="easy"))
    assert started(found) == ["short", "spare"]
    assert reasons(found) == {"head": Reason.FULL, "long": Reason.BEHIND}
    assert started(outcome(queue(*waiting, ledger=ledger, order="strict"))) == []


def test_without_any_limit_nobody_passes() -> None:
    found = outcome(queue(request("head", 7, 1), request("small", 1, 2, run_limit=1.0), ledger=(running("r", 6),), order="easy"))
    assert started(found) == []
    assert reasons(found)["small"] == Reason.WOULD_DELAY


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        ({"gpus": 10**9}, Reason.TOO_LARGE),
        ({"lane": "h100"}, Reason.NO_LANE),
        ({"lane": None}, Reason.NO_LANE),
        ({"size": 2}, Reason.INCOMPLETE),
        ({"sizes_agree": False}, Reason.CONFUSED),
        ({"size": 0}, Reason.CONFUSED),
        ({"blocked": "istio"}, Reason.BLOCKED),
    ],
)
def test_what_cannot_start_is_told_so_and_passed_by(odd: dict[str, object], reason: Reason) -> None:
    found = outcome(queue(request("odd", since=1, **odd), request("next", 8, 2)))  # type: ignore[arg-type]
    assert started(found) == ["next"]
    assert reasons(found) == {"odd": reason}


def test_a_calendar_that_gives_enough_later_makes_it_wait_and_not_give_up() -> None:
    later = lane(2, later=((5000.0, 8),))
    found = outcome(queue(request("large", 6), lanes=(later,)))
    assert reasons(found) == {"large": Reason.FULL}
    assert expected_start(later, [], 6, NOW) == (5000.0, 2)


def test_a_group_starts_whole_and_its_new_pods_take_the_places_of_ended_ones() -> None:
    group = Request(
        key="team/g", namespace="team", name="g", lane="l4", pods=(Pod(uid="x", gpus=4), Pod(uid="y", gpus=4)), since=1.0, size=2
    )
    (grant,) = outcome(queue(group)).granted
    assert grant.gpus == 8
    anew = replace(group, pods=(Pod(uid="z", gpus=4),))
    later = outcome(queue(anew, ledger=(grant,), ended=frozenset({"x"})))
    assert [pod.uid for entry in later.ledger for pod in entry.pods] == ["z", "y"]
    assert later.ledger[0].gpus == 8
    too_many = outcome(queue(anew, ledger=(grant,)))
    assert too_many.ledger == (grant,)
    assert reasons(too_many) == {"team/g": Reason.CONFUSED}


def test_a_group_for_which_an_entry_of_the_ledger_has_no_room_holds_nobody_up() -> None:
    pods = tuple(Pod(uid=str(number), gpus=1) for number in range(MOST_PODS + 1))
    giant = Request(key="team/g", namespace="team", name="g", lane="l4", pods=pods, since=1.0, size=len(pods))
    found = outcome(queue(giant, request("next", since=2), lanes=(lane(10**6),)))
    assert (started(found), reasons(found)) == (["next"], {"team/g": Reason.CONFUSED})
    as_large_as_may_be = replace(giant, pods=pods[1:], size=MOST_PODS)
    assert started(outcome(queue(as_large_as_may_be, lanes=(lane(10**6),)))) == ["team/g"]


def test_a_spent_budget_holds_new_grants_and_takes_nothing_back() -> None:
    spent = Budget(gpu_seconds=100.0, spent=100.0, hold=True)
    found = outcome(queue(request("a"), ledger=(running("r", 1),), budget=spent))
    assert (started(found), found.ledger) == ([], (running("r", 1),))
    assert reasons(found) == {"a": Reason.BUDGET}
    assert started(outcome(queue(request("a"), budget=replace(spent, hold=False)))) == ["a"]


def test_what_runs_without_a_grant_is_counted_and_never_killed() -> None:
    found = outcome(queue(request("a", 4), found=(request("foreign", 6),)))
    assert [(grant.key, grant.foreign) for grant in found.ledger] == [("foreign", True)]
    assert reasons(found) == {"a": Reason.FULL}


def test_the_longest_waiting_head_borrows_first_within_what_its_queue_may_borrow() -> None:
    pool = Queue(name="shared", lanes=(lane(4),))
    full = (running("r", 8),)
    one = queue(request("one", 3, 2), ledger=full, pool="shared", max_borrow=4)
    two = replace(queue(request("two", 3, 1), ledger=full, pool="shared", max_borrow=4), name="q2")
    found = decide([one, two, pool], NOW)
    assert [(grant.key, grant.owner) for grant in found["shared"].ledger] == [("two", "q2")]
    assert found["q2"].ledger == full
    assert reasons(found["q"]) == {"one": Reason.FULL}
    stingy = replace(two, max_borrow=2)
    assert started(decide([stingy, pool], NOW)["shared"]) == []


def test_a_pool_serves_its_own_line_before_it_lends() -> None:
    pool = Queue(name="shared", lanes=(lane(4),), waiting=(request("own", 5, 9, key="own"),), ledger=())
    pool = replace(pool, lanes=(lane(4, later=((2000.0, 8),)),))
    one = queue(request("one", 3, 2), ledger=(running("r", 8),), pool="shared", max_borrow=4)
    assert started(decide([one, pool], NOW)["shared"]) == []


LANES = ("l4", "h100")
REQUESTS = st.builds(
    lambda number, gpus, since, of, limit, size: Request(
        key=f"k{number}",
        namespace="team",
        name=f"n{number}",
        lane=of,
        pods=tuple(Pod(uid=f"k{number}.{i}", gpus=count) for i, count in enumerate(gpus)),
        since=float(since),
        size=size or len(gpus),
        run_limit=limit,
    ),
    st.integers(0, 30),
    st.lists(st.integers(1, 9), min_size=1, max_size=3),
    st.integers(0, 5),
    st.sampled_from([*LANES, None]),
    st.sampled_from([None, 10.0, 500.0, 5000.0]),
    st.sampled_from([0, 0, 0, 1, 2]),
)


@st.composite
def queues(draw: st.DrawFn) -> Queue:
    requests = {each.key: each for each in draw(st.lists(REQUESTS, max_size=12))}
    holding = {each.key: each for each in draw(st.lists(REQUESTS, max_size=5)) if each.key not in requests and each.lane}
    ledger = tuple(
        Grant(key=each.key, namespace="team", name=each.name, lane=str(each.lane), pods=each.pods, at=each.since, limit=each.run_limit)
        for each in holding.values()
    )
    uids = [pod.uid for grant in ledger for pod in grant.pods]
    return Queue(
        name="q",
        lanes=tuple(
            Lane(name=name, quota=((0.0, draw(st.integers(0, 12))), *draw(st.sampled_from([(), ((2000.0, 4),)])))) for name in LANES
        ),
        order=draw(st.sampled_from(["strict", "easy"])),
        default_limit=draw(st.sampled_from([None, 600.0])),
        ledger=ledger,
        waiting=tuple(requests.values()),
        ended=frozenset(draw(st.sets(st.sampled_from(uids)))) if uids else frozenset(),
    )


def applied(before: Queue, found: Outcome) -> Queue:
    """The queue once the outcome is written."""
    gone = {grant.key for grant in found.granted}
    return replace(before, ledger=found.ledger, waiting=tuple(each for each in before.waiting if each.key not in gone))


@given(queues())
@settings(max_examples=400, deadline=None)
def test_a_new_grant_fits_and_only_what_is_over_is_released(one: Queue) -> None:
    found = outcome(one)
    for each in one.lanes:
        held = sum(grant.gpus for grant in found.ledger if grant.lane == each.name)
        if any(grant.lane == each.name for grant in found.granted):
            assert held <= each.now
    for grant in one.ledger:
        assert (grant in found.ledger) != all(pod.uid in one.ended for pod in grant.pods)


@given(queues())
@settings(max_examples=400, deadline=None)
def test_nobody_is_forgotten_and_nobody_is_there_twice(one: Queue) -> None:
    found = outcome(one)
    told = [wait.key for wait in found.waits] + [grant.key for grant in found.granted]
    assert sorted(told) == sorted(each.key for each in one.waiting)


@given(queues(), st.randoms())
@settings(max_examples=300, deadline=None)
def test_every_replica_decides_the_same_and_deciding_again_changes_nothing(one: Queue, random: object) -> None:
    shuffled = list(one.waiting)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    found = outcome(one)
    assert outcome(replace(one, waiting=tuple(shuffled))) == found
    again = outcome(applied(one, found))
    assert again.ledger == found.ledger
    assert not again.granted


@given(queues())
@settings(max_examples=400, deadline=None)
def test_strict_order_starts_nobody_before_somebody_ahead(one: Queue) -> None:
    found = outcome(replace(one, order="strict"))
    rank = {each.key: each.rank for each in one.waiting}
    for wait in found.waits:
        if wait.place:
            behind = [grant for grant in found.granted if grant.lane == wait.lane]
            assert all(rank[grant.key] < rank[wait.key] for grant in behind)


@given(queues())
@settings(max_examples=400, deadline=None)
def test_easy_order_never_moves_the_heads_expected_start(one: Queue) -> None:
    easy, strict = (outcome(replace(one, order=order)) for order in ("easy", "strict"))  # type: ignore[arg-type]
    waiting = {each.key: each for each in one.waiting}
    for each in one.lanes:
        head = next((wait for wait in strict.waits if wait.lane == each.name and wait.place == 1), None)
        if head is None:
            continue
        gpus = waiting[head.key].gpus
        expected, passed = (
            expected_start(each, [grant for grant in found.ledger if grant.lane == each.name], gpus, NOW)[0] for found in (strict, easy)
        )
        assert passed <= expected
        assert head.key not in {grant.key for grant in easy.granted}


@given(queues())
@settings(max_examples=200, deadline=None)
def test_in_the_end_everybody_who_can_start_has_started(one: Queue) -> None:
    one = replace(one, lanes=tuple(replace(each, quota=each.quota[:1]) for each in one.lanes))
    assume(one.waiting)
    possible = {wait.key for wait in outcome(one).waits if wait.place} | {grant.key for grant in outcome(one).granted}
    begun: set[str] = set()
    for _ in range(len(one.waiting) + 1):
        found = outcome(one)
        begun |= {grant.key for grant in found.granted}
        one = replace(applied(one, found), ended=frozenset(pod.uid for grant in found.ledger for pod in grant.pods))
    assert begun == possible
    assert expected_start(one.lanes[0], [], 10**9, NOW) == (FOREVER, 0)


LONG = "x" * 200
"""Words that are long enough to fill a ledger."""


def crowd(name: str, since: float = 0.0, pods: int = MOST_PODS) -> Request:
    """A group that takes a quarter of a ledger, or so many pods' share of it."""
    return request(name, since=since, pods=tuple(Pod(uid=f"{name}{number}", gpus=1, name=LONG) for number in range(pods)), size=pods)


def test_a_ledger_that_has_no_room_lets_nobody_in_until_something_ends() -> None:
    many = queue(*(crowd(name, since) for since, name in enumerate("abcdef")), request("small", since=9), lanes=(lane(10**5),))
    first = outcome(many)
    assert started(first) == ["a", "b", "c"]
    assert sum(grant.weight for grant in first.ledger) <= LEDGER_BYTES
    assert reasons(first) == {"d": Reason.LEDGER, "e": Reason.BEHIND, "f": Reason.BEHIND, "small": Reason.BEHIND}
    rest = tuple(request for request in many.waiting if request.key not in started(first))
    later = outcome(replace(many, ledger=first.ledger, waiting=rest, ended=frozenset(pod.uid for pod in first.ledger[0].pods)))
    assert started(later) == ["d"]


def test_who_runs_already_and_has_no_room_in_the_ledger_keeps_others_from_starting() -> None:
    held = tuple(running(name, 0, pods=crowd(name).pods) for name in "abc")
    found = outcome(queue(request("small"), lanes=(lane(10**5),), ledger=held, found=(crowd("foreign"),)))
    assert started(found) == []
    assert reasons(found) == {"small": Reason.LEDGER}


def test_a_ledger_that_was_made_too_large_by_hand_is_kept_and_shrinks() -> None:
    held = tuple(running(name, 0, pods=crowd(name).pods) for name in "abcdefgh")
    found = outcome(queue(request("small"), lanes=(lane(10**5),), ledger=held, ended=frozenset(pod.uid for pod in held[0].pods)))
    assert [grant.key for grant in found.ledger] == list("bcdefgh")


def test_a_pool_lends_no_more_than_its_ledger_has_room_for() -> None:
    pool = queue(name="pool", lanes=(lane(10**5),), ledger=tuple(running(name, 0, pods=crowd(name).pods) for name in "abc"))
    team = queue(crowd("d"), name="team", lanes=(lane(MOST_PODS - 1),), pool="pool", max_borrow=10**5)
    decided = decide([pool, team], NOW)
    assert decided["pool"].granted == decided["team"].granted == ()


@given(
    st.lists(st.integers(1, MOST_PODS), max_size=12), st.lists(st.integers(1, MOST_PODS), max_size=6), st.sampled_from(["strict", "easy"])
)
@settings(max_examples=30, deadline=None)
def test_no_ledger_grows_beyond_what_can_be_written(waiting: list[int], found: list[int], order: str) -> None:
    requests = [crowd(f"w{place}", place, pods) for place, pods in enumerate(waiting)]
    foreign = tuple(crowd(f"f{place}", place, pods) for place, pods in enumerate(found))
    result = outcome(queue(*requests, lanes=(lane(sum(waiting) // 2 + sum(found)),), found=foreign, order=order))
    assert sum(grant.weight for grant in result.ledger) <= LEDGER_BYTES
    assert {grant.key for grant in result.granted} | reasons(result).keys() >= {request.key for request in requests}
