"""`gpuq what-if` and `gpuq plan`: a history replayed as it was, and otherwise."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuqueue.calendar import Window
from gpuqueue.commands.planning import Load, add_parsers
from gpuqueue.history import Past, line_of
from gpuqueue.planning import Change, changed, outlook, recorded, sweep
from gpuqueue.queue import Lane, Order, Queue
from gpuqueue.replayed import waits_of
from gpuqueue.simulate import Job, Policy, Started, replay

HOUR = 3600.0


def past(queue: str, gpus: int, since: float, at: float, ended: float, **more: Any) -> Past:
    return Past(queue=queue, lane="l4", namespace="n", name="x", family="", gpus=gpus, since=since, at=at, ended=ended, **more)


def policy(name: str, quota: int, order: Order = "strict") -> Policy:
    return Policy(queue=Queue(name=name, lanes=(Lane(name="l4", quota=((0.0, quota),)),), order=order))


def history_of(starts: Sequence[Started]) -> list[Past]:
    return [past("a", s.job.gpus, s.job.since, s.at, s.at + s.job.seconds, limit=s.job.limit) for s in starts]


BUSY = history_of(replay([Job(key=f"{i:03}", since=600.0 * i, gpus=1 + i % 4, seconds=HOUR) for i in range(60)], quota=8, order="strict"))
"""Sixty jobs that keep waiting for eight GPUs."""

JOBS = st.lists(
    st.tuples(st.integers(0, 400), st.integers(1, 4), st.integers(1, 60)), min_size=1, max_size=25, unique_by=lambda job: job[0]
)


@given(JOBS, st.floats(0.0001, 0.006))
@settings(max_examples=150, deadline=None)
def test_as_it_was_is_what_was_recorded_also_from_the_middle(rows: list[tuple[int, int, int]], days: float) -> None:
    """What ran or waited when the window begins is there again, so that the replay goes on as the history did."""
    jobs = [Job(key=f"{i:03}", since=float(s), gpus=g, seconds=float(r)) for i, (s, g, r) in enumerate(sorted(rows))]
    history = recorded(history_of(replay(jobs, quota=5, order="strict")), [policy("a", 5)], days=days)
    assert sorted(outlook(history, history.policies).waits.get("a", ())) == sorted(one.wait for one in history.counted)


def test_what_ran_when_the_window_begins_goes_on_before_anybody_who_waited_longer() -> None:
    passed, head = past("a", 1, 5, 5, 100), past("a", 4, 0, 100, 110)  # in EASY order the first had passed the second
    late = past("a", 1, 60, 100, 86400 + 50)
    history = recorded([head, passed, late, past("a", 1, 86400 + 30, 86400 + 50, 86400 + 60)], [policy("a", 4)], days=1)
    assert history.begin == 50
    found = outlook(history, history.policies)
    assert found.waits["a"] == (50.0, 0.0)


def test_a_lane_that_nobody_describes_has_the_gpus_that_were_held_at_once() -> None:
    history = recorded([past("a", 3, 0, 0, 10), past("a", 2, 0, 5, 20), past("a", 4, 0, 20, 30), past("b", 1, 0, 0, 10)])
    assert {one.queue.name: one.queue.lanes[0].now for one in history.policies} == {"a": 5, "b": 1}


def test_policies_that_are_known_stay_as_they_are() -> None:
    history = recorded([past("a", 3, 0, 0, 10)], [policy("a", 9), policy("idle", 2)])
    assert {one.queue.name: one.queue.lanes[0].now for one in history.policies} == {"a": 9, "idle": 2}


def test_only_the_last_days_are_looked_at() -> None:
    old, new = past("a", 1, 0, 0, 10), past("a", 1, 10 * 86400, 10 * 86400, 10 * 86400 + 60)
    assert recorded([old, new], days=7).pasts == (new,)
    assert recorded([old, new]).pasts == recorded([old, new], days=float("inf")).pasts == (old, new)


def test_more_gpus_let_people_start_sooner_and_each_change_is_made() -> None:
    history = recorded(BUSY, [policy("a", 8)])
    after = changed(history.policies, Change(quotas={("a", "l4"): 16}, orders={"a": "easy"}))
    assert (after[0].queue.order, after[0].queue.lanes[0].now) == ("easy", 16)
    before, then = (waits_of(outlook(history, policies).waits["a"]) for policies in (history.policies, after))
    assert before is not None
    assert then is not None
    assert then.mean < before.mean / 2


def test_jobs_that_the_new_quota_can_never_hold_are_counted() -> None:
    found = outlook(recorded(BUSY), changed(recorded(BUSY).policies, Change(quotas={("a", "l4"): 3})))
    assert found.never == {"a": 15}
    assert len(found.waits["a"]) == 45


def test_a_pool_that_is_not_there_yet_is_made() -> None:
    history = recorded(BUSY, [policy("a", 8)])
    after = changed(history.policies, Change(quotas={("shared", "l4"): 4}, pools={"a": ("shared", 4)}))
    found = outlook(history, after)
    assert found.use["shared", "l4"].held > 0
    assert max(gpus for _, gpus in found.in_use) > 8


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (Change(quotas={("b", "l4"): 1}), "there is no queue 'b'; there are a"),
        (Change(quotas={("a", "h100"): 1}), "queue 'a' has no lane 'h100'; it has l4"),
        (Change(orders={"b": "easy"}), "there is no queue 'b'"),
        (Change(pools={"a": ("a", 1)}), "'a' cannot borrow from 'a'"),
        (Change(pools={"a": ("p", 1), "p": ("a", 1)}), "cannot borrow"),
    ],
)
def test_a_change_of_what_is_not_there_is_refused(change: Change, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        changed([policy("a", 8)], change)


@given(JOBS, st.integers(0, 100))
@settings(max_examples=60, deadline=None)
def test_a_sweep_finds_a_quota_that_is_enough_and_one_gpu_less_is_not(rows: list[tuple[int, int, int]], target: int) -> None:
    pasts = [past("a", gpus, since, since, since + ran) for since, gpus, ran in rows]
    found = sweep(recorded(pasts), ("a", "l4"), float(target))
    smallest = min(quota for quota, waits in found.items() if waits.p95 <= target)
    assert smallest == max(gpus for _, gpus, _ in rows) or found[smallest - 1].p95 > target


def gpuq(*words: str, load: Load | None = None) -> int:
    """The command, as the dispatcher calls it."""
    parser = argparse.ArgumentParser(prog="gpuq")
    add_parsers(parser.add_subparsers(required=True), load)
    arguments = parser.parse_args(words)
    code: int = arguments.run(arguments)
    return code


@pytest.fixture
def trace(tmp_path: Path) -> str:
    other = [replace(one, queue="b", gpus=1) for one in BUSY[:10]]
    file = tmp_path / "trace.jsonl"
    file.write_text("".join(f"{line_of(one)}\n" for one in [*BUSY, *other]), encoding="utf-8")
    return str(file)


def test_what_if_prints_waits_by_team_and_the_gpus_in_use(trace: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpuq("what-if", "--trace", trace, "--quota", "a/l4=16", "--order", "a=easy") == 0
    said = capsys.readouterr().out
    rows = [line.split() for line in said.splitlines()]
    a = {" ".join(row[1:3]): row for row in rows if row[:1] == ["a"]}
    assert a["as it"][-6:-1] == a["recorded 60"][2:]  # the replay of what was is what was: all but the jobs, and none that never starts
    assert ["a", "what", "if", "60"] in [row[:4] for row in rows]
    assert ["a/l4", "what", "if", "16"] in [row[:4] for row in rows]
    assert "GPUs in use over time" in said


def test_what_if_for_machines(trace: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpuq("what-if", "--trace", trace, "--quota", "a/l4=3", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["as it was"]["waits"]["a"]["jobs"] == 60
    assert found["what if"]["never"] == {"a": 15, "b": 0}
    end = max(one.at for one in BUSY)
    held = sum(one.gpus * (min(end, one.ended) - one.at) for one in BUSY)
    assert found["as it was"]["use"][0] == {"queue": "a", "lane": "l4", "gpu_hours": held / HOUR, "share": held / (8 * end)}


def drawn_in(file: Path) -> tuple[list[str], list[list[tuple[float, float]]]]:
    """The words and the lines of a picture, in their order."""
    drawn, space = ET.parse(file).getroot(), {"svg": "http://www.w3.org/2000/svg"}
    lines = [line.attrib["points"].split() for line in drawn.iterfind("svg:polyline", space)]
    points = [[(float(x), float(y)) for x, y in (point.split(",") for point in line)] for line in lines]
    return [text.text or "" for text in drawn.iterfind("svg:text", space)], points


def test_what_if_draws_a_panel_for_each_team_and_one_for_the_gpus(trace: str, tmp_path: Path) -> None:
    file = tmp_path / "out.svg"
    assert gpuq("what-if", "--trace", trace, "--quota", "a/l4=16", "--plot", str(file)) == 0
    words, lines = drawn_in(file)
    assert [word for word in words if "started" in word or word == "GPUs in use"] == [
        "a: started after a wait of at most",
        "b: started after a wait of at most",
        "GPUs in use",
    ]
    assert len(lines) == 6
    for line in lines[:4]:  # the share that has started only grows, from the left to the right and upwards
        assert [x for x, _ in line] == sorted(x for x, _ in line)
        assert [y for _, y in line] == sorted((y for _, y in line), reverse=True)
    left_now, left_then = (sum(x for x, _ in line) / len(line) for line in lines[:2])
    assert left_then < left_now


def test_plan_says_the_smallest_quota(trace: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpuq("plan", "--trace", trace, "--lane", "a/l4", "--wait-p95", "10m", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    by_quota = {row["quota"]: row["p95"] for row in found["quotas"]}
    assert by_quota[found["smallest"]] <= 600 < by_quota[found["smallest"] - 1]
    assert 8 in by_quota
    assert gpuq("plan", "--trace", trace, "--lane", "a/l4", "--wait-p95", "10m", "--order", "easy") == 0
    assert "GPUs nineteen in twenty start within 10m." in capsys.readouterr().out


def test_plan_prints_waits_by_team_and_the_gpus_in_use_under_the_quota_found(trace: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpuq("plan", "--trace", trace, "--lane", "a/l4", "--wait-p95", "10m", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    at_smallest = next(row for row in found["quotas"] if row["quota"] == found["smallest"])
    assert found["planned"]["waits"]["a"] == {name: at_smallest[name] for name in ("jobs", "mean", "p50", "p95", "longest")} | {"never": 0}
    assert gpuq("plan", "--trace", trace, "--lane", "a/l4", "--wait-p95", "10m") == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["a", "planned", "60"] in [row[:3] for row in rows]
    assert ["a/l4", "planned", str(found["smallest"])] in [row[:3] for row in rows]


def test_plan_draws_waits_by_quota_and_then_what_what_if_draws(trace: str, tmp_path: Path) -> None:
    file = tmp_path / "out.svg"
    assert gpuq("plan", "--trace", trace, "--lane", "a/l4", "--wait-p95", "10m", "--plot", str(file)) == 0
    words, lines = drawn_in(file)
    assert [word for word in words if "wait" in word or word == "GPUs in use"] == [
        "a/l4: what nineteen in twenty wait at most, by quota; they should wait 10m",
        "a: started after a wait of at most",
        "b: started after a wait of at most",
        "GPUs in use",
    ]
    should, waits = lines[:2]
    assert should[0][1] == should[1][1]
    assert waits[0][1] < should[0][1] <= waits[-1][1]  # upwards is less on paper: the first quota is too small, the last is enough


def test_the_clusters_own_history_is_read_where_no_file_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpuq("what-if", "--quota", "a/l4=16", "--json", load=lambda _: (BUSY, [policy("a", 8)])) == 0
    assert json.loads(capsys.readouterr().out)["as it was"]["waits"]["a"]["jobs"] == 60


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["what-if", "--quota", "a/l4"], "'a/l4' does not end with a number of GPUs"),
        (["what-if", "--quota", "l4=3"], "'l4' is no lane; write TEAM/LANE"),
        (["what-if", "--quota", "c/l4=3"], "there is no queue 'c'; there are a, b"),
        (["what-if", "--order", "a=fair"], "'a=fair' is no order; write strict or easy"),
        (["what-if", "--pool", "a:3"], "'a:3' is no pool; write TEAM=POOL:GPUS"),
        (["what-if", "--days", "0"], "--days 0: it must be above zero"),
        (["what-if", "--plot", "/nowhere/at/all.svg"], "/nowhere/at/all.svg cannot be written"),
        (["plan", "--lane", "a/l4", "--wait-p95", "1m", "--plot", "/nowhere/at/all.svg"], "/nowhere/at/all.svg cannot be written"),
        (["plan", "--lane", "a/l4", "--wait-p95", "soon"], "'soon' is no duration above zero"),
        (["plan", "--lane", "a/h100", "--wait-p95", "1m"], "no job of this time asked for a/h100; there are a/l4, b/l4"),
    ],
)
def test_a_wrong_argument_ends_with_2_and_says_what_to_type(
    words: list[str], said: str, trace: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gpuq(*words, "--trace", trace) == 2
    refused = capsys.readouterr().err
    assert said in refused
    assert refused.rstrip().endswith(f"gpuq {words[0]} --help")


@pytest.mark.parametrize("load", [None, lambda _: ([], [])], ids=["no cluster", "an empty history"])
def test_without_a_history_a_file_is_asked_for(load: Load | None, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpuq("what-if", load=load) == 2
    assert "name a file with --trace" in capsys.readouterr().err


def test_a_broken_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "t.csv").write_text("queue\n", encoding="utf-8")
    assert gpuq("what-if", "--trace", str(tmp_path / "t.csv")) == 2
    assert "t.csv, line 1: no column 'lane'" in capsys.readouterr().err


def test_where_no_quota_is_enough_plan_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    always = Window(cron="0 * * * *", seconds=HOUR, quota=4)
    closed = Policy(queue=policy("a", 8).queue, windows={"l4": (always,)})
    assert gpuq("plan", "--lane", "a/l4", "--wait-p95", "1s", load=lambda _: (BUSY, [closed])) == 3
    assert "look at the lane's windows" in capsys.readouterr().out
