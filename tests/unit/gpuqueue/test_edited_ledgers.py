"""Whatever somebody writes into a ledger by hand, the round goes on: what the schema lets through never makes `decide` or `reconcile` raise."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

import gpu_objects as make
from gpuqueue.cluster.board import board
from gpuqueue.cluster.gpu_queues import Policy, read, status_body
from gpuqueue.cluster.reports import queue_report
from gpuqueue.cluster.view import View
from gpuqueue.decide import decide
from gpuqueue.queue import Queue
from gpuqueue.reconcile import ConfirmOver, Ledger, OpenGate, ReadLedger, Report, SeenPod, TryGate, WriteLedger, converse, reconcile

NOW = 1_795_262_400.0
UIDS = [f"u{number}" for number in range(6)]
QUEUES = ["a", "b", "pool"]
LANES = ["l4", "h100", "gone", ""]
HUGE = 9 * 10**18
GPUS = st.integers(0, 9) | st.just(HUGE)
MOMENTS = st.sampled_from(["2026-11-21T12:00:00Z", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z", "yesterday", ""])
KEYS = st.sampled_from([*UIDS, "team/g", "team/h"]) | st.text(max_size=3)
MEMBERS = st.lists(st.fixed_dictionaries({"uid": st.sampled_from(UIDS)}, optional={"name": st.text(max_size=2), "gpus": GPUS}), max_size=3)
ENTRIES = st.fixed_dictionaries(
    {
        "uid": KEYS,
        "name": st.text(max_size=3),
        "namespace": st.sampled_from(["team", "gone", ""]),
        "gpus": GPUS,
        "lane": st.sampled_from(LANES),
        "at": MOMENTS,
    },
    optional={
        "since": MOMENTS,
        "kind": st.text(max_size=3),
        "limit": st.sampled_from(["", "soon", "6h", "0s", "999999999h"]),
        "foreign": st.booleans(),
        "owner": st.sampled_from([*QUEUES, "nobody"]),
        "members": MEMBERS,
    },
)
STATUSES = st.fixed_dictionaries(
    {"grants": st.lists(ENTRIES, max_size=5)},
    optional={
        "spent": st.fixed_dictionaries({"period": st.sampled_from(["2026-11", "2026-10", "soon"]), "gpuSeconds": GPUS}),
        "queue": st.fixed_dictionaries({"waiting": st.integers(), "headSince": MOMENTS}),
    },
)
BUDGETS = st.none() | st.fixed_dictionaries({"gpuHours": st.integers(1, 10**6), "whenSpent": st.sampled_from(["warn", "hold"])})
PODS = st.lists(
    st.builds(
        SeenPod,
        uid=st.sampled_from(UIDS),
        namespace=st.just("team"),
        name=st.sampled_from(UIDS),
        phase=st.sampled_from(["gated", "open", "ended"]),
        gpus=st.integers(0, 9) | st.just(10**9),
        queue=st.sampled_from([*QUEUES, ""]),
        lane=st.sampled_from(["l4", "h100", None]),
        since=st.floats(0, NOW),
        group=st.sampled_from([None, None, "g", "h"]),
        size=st.integers(1, 3),
        run_limit=st.none() | st.floats(1, 1e12),
        family=st.text(max_size=2),
    ),
    max_size=6,
    unique_by=lambda pod: pod.uid,
)


@st.composite
def policies(draw: st.DrawFn) -> dict[str, Policy]:
    found = {}
    for name in draw(st.sets(st.sampled_from(QUEUES), min_size=1)):
        pool = draw(st.sampled_from([None, "pool", "a", "nobody"]))
        spec: dict[str, Any] = {"pool": {"name": pool, "maxBorrow": draw(st.integers(0, 9))}} if pool not in (None, name) else {}
        lanes = [make.lane("l4", quota=draw(st.integers(0, 9))), make.lane("h100", quota=draw(st.integers(0, 2)))]
        thing = make.queue(name, lanes=lanes, order=draw(st.sampled_from(["strict", "easy"])), budget=draw(BUDGETS), **spec)
        thing["metadata"]["resourceVersion"] = "1"
        found[name] = read(json.dumps(thing | {"status": draw(STATUSES)}).encode())
    return found


class Cluster:
    """Answers a round: ledgers are written when they are not older than what is there, and some pods are over."""

    def __init__(self, known: dict[str, Policy], over: set[str], refused: set[str]) -> None:
        self.policies, self.over, self.refused = known, over, refused
        self.bodies: list[bytes] = []

    def round(self, pods: list[SeenPod]) -> Report:
        return converse(reconcile([policy.queue(NOW) for policy in self.policies.values()], pods, NOW), self.answer)

    def answer(self, effect: object) -> Any:
        match effect:
            case ReadLedger(queue=name):
                return Ledger(version="1", grants=self.policies[name].grants)
            case ConfirmOver(uid=uid):
                return uid in self.over
            case TryGate(uid=uid):
                return "no" if uid in self.refused else ""
            case WriteLedger(queue=name, grants=grants):
                body = status_body(self.policies[name], grants, None, NOW)
                self.bodies.append(msgspec.json.encode(body))
                self.policies[name] = replace(self.policies[name], grants=grants)
                return True
            case OpenGate():
                return None
        raise AssertionError(effect)


@given(policies(), PODS, st.sets(st.sampled_from(UIDS)), st.sets(st.sampled_from(UIDS)))
@settings(max_examples=300, deadline=None)
def test_a_round_over_any_ledger_ends_and_what_it_writes_can_be_read(
    known: dict[str, Policy], pods: list[SeenPod], over: set[str], refused: set[str]
) -> None:
    cluster = Cluster(known, over, refused)
    before = {name: policy.queue(NOW) for name, policy in known.items()}
    report = cluster.round(pods)
    for queue in report.queues:
        _granted_within_quota(before[queue.name], queue, report)
    for name, policy in cluster.policies.items():
        again = read(msgspec.json.encode(make.queue(name) | {"status": status_body(policy, policy.grants, None, NOW)["status"]}))
        assert [grant.key for grant in again.grants] == [grant.key for grant in policy.grants]


def _granted_within_quota(before: Queue, after: Queue, report: Report) -> None:
    outcome = report.outcomes[after.name]
    for lane in after.lanes:
        if any(grant.lane == lane.name and not grant.foreign for grant in outcome.granted):
            assert sum(grant.gpus for grant in outcome.ledger if grant.lane == lane.name) <= lane.now
    assert {grant.key for grant in before.ledger} - {grant.key for grant in outcome.ledger} <= {
        grant.key for grant in before.ledger if all(pod.uid in after.ended for pod in grant.pods)
    }, "only what is over leaves a ledger"


@given(policies(), PODS)
@settings(max_examples=150, deadline=None)
def test_the_picture_of_any_ledger_can_be_drawn_and_told(known: dict[str, Policy], pods: list[SeenPod]) -> None:
    found = board(_Seen(known, pods), NOW, starts={pod.key: (NOW, 1e14) for pod in pods})
    for name in known:
        msgspec.json.encode(queue_report(found, name))


class _Seen(View):
    """A view that has heard exactly this."""

    def __init__(self, known: dict[str, Policy], pods: list[SeenPod]) -> None:
        self.policies, self._pods = known, pods

    def seen(self, names: object = None) -> list[SeenPod]:  # noqa: ARG002 (the signature of a view)
        return self._pods


@given(policies())
@settings(max_examples=100, deadline=None)
def test_decide_answers_for_every_queue_whatever_their_ledgers_say(known: dict[str, Policy]) -> None:
    assert decide([policy.queue(NOW) for policy in known.values()], NOW).keys() == known.keys()
