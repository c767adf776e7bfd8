"""GpuQueue objects: the ledger comes back as it was written, GPU time is counted once, and nonsense is survived."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gpu_objects as make
from gpuqueue.cluster.gpu_queues import Policy, claims, read, stamp, status_body
from gpuqueue.cluster.pods import moment
from gpuqueue.queue import Grant, Pod

NOON = 1_795_262_400.0
"""21 November 2026, 12:00 UTC."""
DAY = 86400.0


def policy(status: dict[str, Any] | None = None, **spec: Any) -> Policy:
    thing = make.queue("fraud", **spec)
    thing["metadata"] |= {"resourceVersion": "7", "creationTimestamp": "2026-11-01T00:00:00Z"}
    return read(json.dumps(thing | {"status": status or {}}).encode())


def written(before: Policy, grants: Sequence[Grant], now: float) -> Policy:
    """The object as the API server has it after a write."""
    body = status_body(before, grants, None, now)
    assert body["metadata"]["resourceVersion"] == before.version
    thing = make.queue(before.name) | {"metadata": {"name": before.name, "resourceVersion": str(int(before.version) + 1)}}
    spec = msgspec.to_builtins(before.spec)
    return read(msgspec.json.encode(thing | {"spec": spec, "status": body["status"]}))


MICROSECONDS = st.integers(0, 4 * 10**15).map(lambda count: count / 10**6)
NAMES = st.text("abc-0123", min_size=1, max_size=8)
PODS = st.lists(st.builds(Pod, uid=NAMES, gpus=st.integers(0, 10**9), name=NAMES), min_size=1, max_size=4, unique_by=lambda pod: pod.uid)
GRANTS = st.builds(
    lambda pods, group, **more: Grant(
        key=f"team/{group}" if group else pods[0].uid, name=group or pods[0].name, pods=tuple(pods if group else pods[:1]), **more
    ),
    PODS,
    st.none() | NAMES,
    namespace=NAMES,
    lane=NAMES,
    at=MICROSECONDS,
    limit=st.none() | st.integers(1, 10**9).map(float),
    foreign=st.booleans(),
    owner=st.just("") | NAMES,
    family=st.just("") | NAMES,
    since=st.none() | MICROSECONDS,
)
LEDGERS = st.lists(GRANTS, max_size=6, unique_by=lambda grant: grant.key)


@given(LEDGERS)
def test_a_ledger_comes_back_as_it_was_written(grants: list[Grant]) -> None:
    assert written(policy(), grants, NOON).grants == tuple(grants)


@given(st.floats(allow_nan=False))
def test_every_moment_has_a_stamp_that_reads_back(at: float) -> None:
    said = stamp(at)
    assert said.endswith("Z")
    if 0 <= at <= 2e11:
        assert moment(said) == pytest.approx(at, abs=1e-3)


def held(name: str, gpus: int, at: float) -> Grant:
    return Grant(key=name, namespace="fraud", name=name, lane="l4", pods=(Pod(uid=name, gpus=gpus, name=name),), at=at)


STEPS = st.lists(
    st.tuples(st.floats(1, 20 * DAY), st.integers(1, 8), st.sets(st.integers(0, 11), max_size=4), st.booleans()), min_size=1, max_size=12
)


@given(STEPS, st.sampled_from(["day", "week", "month"]))
@settings(deadline=None)
def test_gpu_time_is_counted_exactly_once_whoever_crashes_when(steps: list[tuple[float, int, set[int], bool]], per: str) -> None:
    """Grants come and go; a write that is lost is made again by the next leader. What is spent is what was held in the period."""
    now, seen, spans = NOON, policy(budget={"gpuHours": 100, "per": per}), {}
    for number, (later, gpus, ending, lost) in enumerate(steps):
        now += later
        grants = [*seen.grants, held(f"g{number}", gpus, now)]
        grants = [grant for grant in grants if int(grant.key[1:]) not in ending or grant.at == now]
        after = written(seen, grants, now)
        if lost:
            continue
        spans |= {grant.key: (grant.gpus, grant.at, now) for grant in seen.grants if grant.key not in {each.key for each in after.grants}}
        seen = after
    begin = seen.period(now).begin
    spans |= {grant.key: (grant.gpus, grant.at, now) for grant in seen.grants}
    held_for = sum(gpus * max(0.0, end - max(at, begin)) for gpus, at, end in spans.values())
    assert seen.spent(now) == pytest.approx(held_for, abs=len(steps)), "to the second for each write"


def test_what_was_spent_in_another_period_is_not_spent_in_this_one() -> None:
    last = policy({"spent": {"period": "2026-10", "gpuSeconds": 10**6}}, budget={"gpuHours": 1})
    assert last.spent(NOON) == 0
    over_the_edge = replace(last, grants=(held("g", 2, datetime(2026, 10, 31, 23, tzinfo=UTC).timestamp()),))
    assert over_the_edge.spent(datetime(2026, 11, 1, 1, tzinfo=UTC).timestamp()) == 2 * 3600


def test_a_lane_is_chosen_by_labels_and_the_one_without_takes_the_rest() -> None:
    lanes = [make.lane("any", match={}), make.lane("l4"), make.lane("big", match={"accelerator": "nvidia-l4", "size": "big"})]
    lanes[1]["match"] = {"accelerator": "nvidia-l4"}
    found = policy(lanes=lanes)
    assert found.lane_for({"accelerator": "nvidia-l4", "zone": "b"}) == "l4"
    assert found.lane_for({"zone": "b"}) == "any"
    assert policy().lane_for({}) is None


def test_a_field_that_means_nothing_is_complained_of_and_left_out() -> None:
    window = {"cron": "0 0 * * *", "for": "1h", "quota": 9}
    found = policy(lanes=[make.lane(windows=[window | {"cron": "0 0 99 * *"}, window | {"timeZone": "Mars/Base"}])], defaultRunLimit="00h")
    fields = ("spec.lanes[l4].windows[0]", "spec.lanes[l4].windows[1]", "spec.defaultRunLimit")
    assert [text.startswith(field) for text, field in zip(found.complaints, fields, strict=True)] == [True] * 3
    assert [quota for _, quota in found.queue(NOON).lanes[0].quota] == [8]
    assert found.queue(NOON).default_limit is None


@pytest.mark.parametrize(
    ("entry", "gpus"),
    [
        ({"gpus": 7, "members": [{"uid": "a", "gpus": 2}, {"uid": "b", "gpus": 1}]}, 7),
        ({"gpus": 1, "members": [{"uid": "a", "gpus": 2}, {"uid": "b"}]}, 2),
        ({"gpus": 3, "members": []}, 3),
        ({"gpus": 3, "at": "yesterday", "since": "tomorrow", "limit": "soon"}, 3),
    ],
)
def test_an_entry_edited_by_hand_holds_what_it_says_and_no_less_than_its_pods(entry: dict[str, Any], gpus: int) -> None:
    (grant,) = policy({"grants": [make.grant("fraud") | entry]}).grants
    assert grant.gpus == gpus


@pytest.mark.parametrize("broken", [{"lanes": "none"}, {"lanes": [{"name": "l4"}]}, {"order": "random"}, {"budget": {"per": "year"}}])
def test_what_has_not_the_schemas_shape_is_said_to_have_not(broken: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        policy(**broken)


def test_a_namespace_that_two_queues_name_stays_with_the_older_one() -> None:
    older, younger = replace(policy(), created=1.0), replace(policy(), name="ads", created=2.0)
    owner, twice = claims([younger, older])
    assert owner == {"fraud": "fraud"}
    assert list(twice) == ["ads"]
    assert "kubectl edit gq ads" in twice["ads"]


ODD = st.text(max_size=40) | st.text('<>&"\\\u2028\U0001f600', max_size=40)


@given(
    st.lists(
        st.builds(
            Grant,
            key=ODD,
            name=ODD,
            namespace=ODD,
            lane=ODD,
            owner=ODD,
            family=ODD,
            at=MICROSECONDS,
            since=MICROSECONDS,
            foreign=st.just(True),
            limit=st.just(1e9),
            pods=st.lists(st.builds(Pod, uid=ODD, name=ODD, gpus=st.integers(0, 10**9)), min_size=1, max_size=4).map(tuple),
        ),
        max_size=4,
    )
)
def test_an_entry_never_takes_more_room_than_the_rule_allows_for(grants: list[Grant]) -> None:
    """Kubernetes is written in Go, whose JSON spells out what could end a script."""
    entries = status_body(policy(), grants, None, NOON)["status"].get("grants", [])
    for entry, grant in zip(entries, grants, strict=True):
        text = json.dumps(entry, ensure_ascii=False, separators=(",", ":"))
        spelt = text.translate({ord(letter): f"\\u{ord(letter):04x}" for letter in "<>&\u2028\u2029"})
        assert len(spelt.encode(errors="surrogatepass")) + 1 <= grant.weight
