"""Who is idle, and what may be done about it: never on a guess."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from gpuqueue.accounts import Account, account, bill
from gpuqueue.queue import Grant, Pod
from gpuqueue.usage import Holder, IdlePolicy, Rung, Sample, State, Step, Use, climb, gpus_in, holders, judge, ladder, look

WINDOW, GRACE, NOW = 2700.0, 900.0, 100_000.0
WARNS = IdlePolicy(metric="gr_engine_active", below=0.03, window=WINDOW, grace=GRACE)
EVICTS = replace(WARNS, evict=True)


def holder(**different: Any) -> Holder:
    """A pod with one GPU that has run for a day."""
    usual = Holder(uid="u1", namespace="fraud", name="train", queue="fraud", lane="l4", grant="u1", gpus=1, since=NOW - 86400)
    return replace(usual, **different)


def sample(**different: Any) -> Sample:
    """Full data of one GPU that did nothing."""
    return replace(Sample(at=NOW, window=WINDOW, mean=0.001, highest=0.01, share=1.0, gpus=1), **different)


def state(a_holder: Holder, a_sample: Sample | None, policy: IdlePolicy = WARNS, now: float = NOW) -> State:
    return judge(a_holder, a_sample, policy, now).state


# -- one pod ----------------------------------------------------------------------------------------------------------------


def test_a_pod_that_was_seen_all_the_time_and_did_nothing_is_idle_since_the_window_began() -> None:
    use = judge(holder(), sample(), WARNS, NOW)
    assert (use.state, use.idle_since) == (State.IDLE, NOW - WINDOW)


def test_one_burst_in_the_window_is_work() -> None:
    assert state(holder(), sample(mean=0.001, highest=0.03)) is State.BUSY


def test_work_that_was_seen_is_work_however_much_is_missing() -> None:
    assert state(holder(gpus=8), sample(highest=0.9, share=0.1)) is State.BUSY


@pytest.mark.parametrize(
    ("who", "what"),
    [
        (holder(), None),
        (holder(), sample(share=0.99)),
        (holder(gpus=2), sample(gpus=1)),
        (holder(), sample(window=WINDOW - 60)),
        (holder(since=NOW - WINDOW + 1), sample()),
        (holder(since=None), sample()),
        (holder(), sample(at=NOW - 301)),
        (holder(), sample(mean=math.nan, highest=math.nan)),
        (holder(), sample(highest=-1.0)),
    ],
    ids=[
        "no data",
        "a hole",
        "one of two GPUs",
        "too short a window",
        "just started",
        "nobody knows since when",
        "old",
        "no numbers",
        "negative",
    ],
)
def test_where_anything_is_missing_use_is_unknown(who: Holder, what: Sample | None) -> None:
    assert state(who, what) is State.UNKNOWN


def test_idleness_goes_on_over_windows_that_touch() -> None:
    first = judge(holder(), sample(at=NOW - WINDOW), WARNS, NOW - WINDOW)
    assert judge(holder(), sample(), WARNS, NOW, before=first).idle_since == NOW - 2 * WINDOW


def test_nobody_knows_what_happened_between_windows_that_do_not_touch() -> None:
    first = judge(holder(), sample(at=NOW - WINDOW - 1), WARNS, NOW - WINDOW - 1)
    assert judge(holder(), sample(), WARNS, NOW, before=first).idle_since == NOW - WINDOW


@pytest.mark.parametrize(
    "before", [{"holder": holder(uid="u0")}, {"policy": replace(WARNS, below=0.5)}], ids=["another pod", "another policy"]
)
def test_what_was_known_of_something_else_does_not_count(before: dict[str, Any]) -> None:
    earlier = replace(judge(holder(), sample(at=NOW - 60), WARNS, NOW - 60), **before)
    assert judge(holder(), sample(), WARNS, NOW, before=earlier).idle_since == NOW - WINDOW


anything = some.one_of(some.floats(min_value=-1, max_value=2), some.sampled_from([0.0, 0.029, 0.03, 1.0, math.nan, math.inf]))
samples = some.builds(
    Sample,
    at=some.floats(NOW - 1000, NOW + 1000),
    window=some.floats(0, 2 * WINDOW),
    mean=anything,
    highest=anything,
    share=anything,
    gpus=some.integers(0, 9),
)


@given(samples, some.integers(0, 8), some.one_of(some.none(), some.floats(NOW - 3 * WINDOW, NOW)))
def test_whoever_is_called_idle_was_seen_doing_nothing_on_every_gpu_all_the_time(seen: Sample, gpus: int, since: float | None) -> None:
    use = judge(holder(gpus=gpus, since=since), seen, WARNS, NOW)
    if use.state is State.IDLE:
        assert seen.share >= 1
        assert seen.gpus >= gpus > 0
        assert 0 <= seen.highest < WARNS.below
        assert since is not None
        assert since <= seen.at - WINDOW
        assert use.idle_since is not None
        assert use.idle_since <= seen.at - WINDOW


# -- the ladder -------------------------------------------------------------------------------------------------------------


def idle(since: float = NOW - WINDOW, at: float = NOW, **different: Any) -> Use:
    return Use(holder=holder(**different), policy=EVICTS, state=State.IDLE, at=at, idle_since=since)


def test_the_ladder_of_a_queue_that_evicts() -> None:
    steps = [climb([idle(at=NOW + after)], NOW, NOW + after).step for after in (0, GRACE / 2 - 1, GRACE / 2, GRACE - 1, GRACE)]
    assert steps == [Step.WARN, Step.WARN, Step.ALERT, Step.ALERT, Step.EVICT]


def test_a_queue_that_did_not_ask_for_it_evicts_nobody() -> None:
    assert climb([replace(idle(), policy=WARNS)], NOW - GRACE, NOW).step is Step.ALERT


def test_a_foreign_pod_is_warned_and_never_evicted() -> None:
    rung = climb([idle(since=NOW - 86400, foreign=True)], NOW - 2 * GRACE, NOW)
    assert rung.step is Step.ALERT


def test_while_one_of_a_group_works_the_others_may_wait_for_it() -> None:
    busy = replace(idle(uid="u2"), state=State.BUSY, idle_since=None)
    assert climb([idle(), busy], NOW - GRACE, NOW) == Rung(grant="u1", step=Step.NONE)


def test_a_warning_about_an_earlier_stretch_does_not_count() -> None:
    rung = climb([idle(since=NOW - WINDOW)], NOW - WINDOW - 1, NOW)
    assert (rung.step, rung.warned) == (Step.WARN, NOW)


def test_nothing_is_done_on_old_knowledge() -> None:
    assert climb([idle(at=NOW - 301)], NOW - GRACE, NOW).step is Step.NONE


def test_a_clock_that_went_back_starts_the_grace_anew() -> None:
    assert climb([idle()], NOW + 60, NOW).warned == NOW


doing_nothing = some.just(sample())
moments = some.sampled_from([60.0, GRACE / 2, GRACE, WINDOW, 2 * WINDOW])
some_rounds = some.lists(some.tuples(moments, some.lists(doing_nothing | doing_nothing | samples, min_size=1, max_size=2)), max_size=12)


@given(some_rounds, some.booleans(), some.booleans())
def test_an_eviction_follows_a_warning_that_stood_for_the_grace_over_idleness_without_a_break(
    rounds: list[tuple[float, list[Sample]]], evict: bool, foreign: bool
) -> None:
    policy, now = replace(WARNS, evict=evict), NOW
    uses: dict[int, Use] = {}
    rung = Rung(grant="u1", step=Step.NONE)
    told: list[tuple[float, Rung, bool]] = []
    for after, seen in rounds:
        now += after
        for n, one in enumerate(seen):
            who = holder(uid=f"u{n}", foreign=foreign and n == 0)
            uses[n] = judge(who, replace(one, at=one.at - NOW + now), policy, now, uses.get(n))
        rung = climb(list(uses.values()), rung.warned, now)
        told.append((now, rung, all(use.state is State.IDLE for use in uses.values())))
    for place, (moment, step, _) in enumerate(told):
        if step.step is Step.EVICT:
            assert evict
            assert not foreign
            first = next(i for i, (_, one, _) in enumerate(told) if one.warned == step.warned)
            assert told[first][1].step is Step.WARN
            assert moment - told[first][0] >= GRACE
            assert all(idle for _, _, idle in told[first : place + 1]), "unknown or busy in between"
            assert step.idle_since is not None
            assert step.idle_since <= told[first][0], "idle before it was warned, and ever since"


def test_the_property_above_sees_evictions() -> None:
    now, rung, use = NOW, Rung(grant="u1", step=Step.NONE), None
    steps = []
    for _ in range(16):
        now += 60
        use = judge(holder(), sample(at=now), EVICTS, now, use)
        rung = climb([use], rung.warned, now)
        steps.append(rung.step)
    assert steps == [Step.WARN] * 8 + [Step.ALERT] * 7 + [Step.EVICT]


def test_a_round_looks_at_every_pod_by_its_queues_policy_and_takes_each_grant_a_step() -> None:
    held = [holder(), holder(uid="u2", name="other", grant="u2", queue="ads"), holder(uid="u3", name="third", grant="u3", queue="free")]
    samples = {("fraud", name): sample() for name in ("train", "other", "third")}
    first = look(held, samples, {"fraud": EVICTS, "ads": replace(WARNS, below=0.005)}, {}, NOW)
    assert [use.state for use in first.values()] == [State.IDLE, State.BUSY, State.UNKNOWN]
    before = {"u1": Rung(grant="u1", step=Step.ALERT, warned=NOW - GRACE)}
    assert [rung.step for rung in ladder(first.values(), before, NOW).values()] == [Step.EVICT, Step.NONE, Step.NONE]


def test_while_nobody_answers_everything_is_unknown_and_warnings_are_void() -> None:
    uses = look([holder()], {}, {"fraud": EVICTS}, {}, NOW)
    rungs = ladder(uses.values(), {"u1": Rung(grant="u1", step=Step.ALERT, warned=NOW - GRACE)}, NOW)
    assert (uses["u1"].state, rungs["u1"]) == (State.UNKNOWN, Rung(grant="u1", step=Step.NONE))


# -- who holds what, and what it costs --------------------------------------------------------------------------------------


def a_grant(**different: Any) -> Grant:
    usual = Grant(key="g", namespace="fraud", name="sweep", lane="l4", pods=(Pod(uid="a", gpus=1), Pod(uid="b", gpus=2)), at=NOW)
    return replace(usual, **different)


def test_borrowed_gpus_are_the_borrowers_and_ended_pods_hold_nothing_to_judge() -> None:
    (only,) = holders("pool", [a_grant(owner="fraud")], {"b": NOW}, ended={"a"})
    assert (only.queue, only.uid, only.gpus, only.since) == ("fraud", "b", 2, NOW)


def test_of_a_pod_that_nobody_saw_starting_the_begin_is_unknown() -> None:
    assert [one.since for one in holders("fraud", [a_grant()], {"a": NOW})] == [NOW, None]


def test_gpus_are_counted_with_zero_where_there_are_none() -> None:
    uses = [idle(gpus=2), replace(idle(lane="h100"), state=State.BUSY)]
    assert gpus_in(State.IDLE, uses) == {("fraud", "l4"): 2, ("fraud", "h100"): 0}


def test_without_a_policy_nobody_asks_who_is_idle_and_the_bill_is_made_all_the_same() -> None:
    (use,) = look([holder()], {("fraud", "train"): sample(mean=0.5)}, {}, {}, NOW).values()
    assert gpus_in(State.UNKNOWN, [use]) == {}
    assert account([use], 10)["fraud", "l4"] == Account(held=10, used=5)


def test_what_is_not_known_is_neither_used_nor_idle() -> None:
    half = Use(holder=holder(gpus=4), policy=WARNS, state=State.BUSY, at=NOW, activity=0.5, known=0.25)
    assert account([half], 100)["fraud", "l4"] == Account(held=400, used=50, unknown=300)
    assert account([half], 100)["fraud", "l4"].idle == 50


def test_one_gpu_of_two_is_half_known() -> None:
    use = judge(holder(gpus=2), sample(mean=0.8, highest=1.0), WARNS, NOW)
    assert account([use], 10)["fraud", "l4"] == Account(held=20, used=8, unknown=10)


def test_a_bill_says_what_idleness_cost_and_what_has_no_price() -> None:
    accounts = {("fraud", "l4"): Account(held=7200, used=3600), ("fraud", "x"): Account(held=60), ("ads", "l4"): Account(held=3600)}
    bills = bill(accounts, {"l4": 2.0})
    assert (bills["fraud"].cost, bills["fraud"].idle_cost, bills["fraud"].unpriced) == (4.0, 2.0, 60)
    assert bills["ads"].cost == 2.0
    assert bills["fraud"].account.held == 7260


@given(some.lists(some.tuples(samples | some.none(), some.integers(0, 8)), max_size=6), some.floats(0, 1e6))
def test_used_idle_and_unknown_make_up_what_was_held(seen: list[tuple[Sample | None, int]], seconds: float) -> None:
    uses = [judge(holder(gpus=gpus), one, WARNS, NOW) for one, gpus in seen]
    held = sum(use.holder.gpus for use in uses) * seconds
    for total in account(uses, seconds).values():
        assert total.held == pytest.approx(held)
        assert min(total.used, total.unknown, total.idle) >= 0
        assert total.used + total.unknown + total.idle == pytest.approx(held)
