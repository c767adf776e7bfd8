"""Long random histories of larger worlds: several queues, groups, a pool, leaders that die and see old things, clocks that jump, quotas that change.

`test_small_worlds` visits every state of tiny worlds; this walks far in large ones. Both drive `reconcile` itself.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gpuqueue.queue import Grant, Lane, Order, Pod, Queue
from gpuqueue.reconcile import ConfirmOver, Effect, Ledger, OpenGate, ReadLedger, Report, SeenPod, TryGate, WriteLedger, converse, reconcile

TEAMS = ("red", "blue")
POOL = "shared"
LEADERS = 3


@dataclass(slots=True)
class Leader:
    """Somebody who believes to lead, somewhere in a round."""

    round: Generator[Effect, Any, Report] | None = None
    effect: Effect | None = None
    quotas: dict[str, int] = field(default_factory=dict)
    """What it believes the quotas are."""


class Cluster(RuleBasedStateMachine):
    """What the API server holds, and who does what with it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000_000.0
        self.pods: dict[str, list[SeenPod | None]] = {}
        """By uid, every state that the pod has had; None: it is gone."""
        self.ledgers: dict[str, list[tuple[Grant, ...]]] = {name: [()] for name in (*TEAMS, POOL)}
        self.quotas: dict[str, int] = dict.fromkeys(self.ledgers, 4)
        self.most: dict[str, int] = dict(self.quotas)
        """The largest quota that anybody ever believed."""
        self.order: Order = "strict"
        self.leaders = [Leader() for _ in range(LEADERS)]
        self.refusing: set[str] = set()
        self.made = 0

    @initialize(order=st.sampled_from(["strict", "easy"]), quota=st.integers(1, 6))
    def begin(self, order: Order, quota: int) -> None:
        self.order = order
        self.quotas = dict.fromkeys(self.ledgers, quota)
        self.most = dict(self.quotas)

    # -- what people and nodes do ------------------------------------------------------------------------------------------

    @rule(team=st.sampled_from(TEAMS), gpus=st.integers(1, 4), limit=st.none() | st.integers(1, 50), size=st.sampled_from([1, 1, 1, 2, 3]))
    def create(self, team: str, gpus: int, limit: int | None, size: int) -> None:
        self.made += 1
        for member in range(size):
            uid = f"{self.made:03}-{member}"
            pod = SeenPod(
                uid=uid,
                namespace=team,
                name=uid,
                phase="gated",
                gpus=gpus,
                queue=team,
                lane="l4",
                since=float(int(self.now)),
                group=f"g{self.made}" if size > 1 else None,
                size=size,
                run_limit=None if limit is None else float(limit),
            )
            self.pods[uid] = [pod]

    @rule(team=st.sampled_from(TEAMS), gpus=st.integers(1, 9))
    def arrive_without_a_gate(self, team: str, gpus: int) -> None:
        self.made += 1
        uid = f"{self.made:03}-foreign"
        since = float(int(self.now))
        self.pods[uid] = [SeenPod(uid=uid, namespace=team, name=uid, phase="open", gpus=gpus, queue=team, lane="l4", since=since)]

    @precondition(lambda self: any(history[-1] for history in self.pods.values()))
    @rule(data=st.data(), gone=st.booleans())
    def end_or_delete(self, data: st.DataObject, gone: bool) -> None:
        uid = data.draw(st.sampled_from(sorted(uid for uid, history in self.pods.items() if history[-1])))
        pod = self.pods[uid][-1]
        assert pod is not None
        self.pods[uid].append(None if gone or pod.phase == "gated" else replace(pod, phase="ended"))

    @rule(seconds=st.floats(-100, 100, allow_nan=False))
    def jump(self, seconds: float) -> None:
        self.now += seconds

    @rule(name=st.sampled_from([*TEAMS, POOL]), quota=st.integers(0, 6))
    def change_quota(self, name: str, quota: int) -> None:
        self.quotas[name] = quota

    @precondition(lambda self: self.pods)
    @rule(data=st.data())
    def refuse_or_not(self, data: st.DataObject) -> None:
        self.refusing ^= {data.draw(st.sampled_from(sorted(self.pods)))}

    # -- what leaders do ---------------------------------------------------------------------------------------------------

    @rule(number=st.integers(0, LEADERS - 1), data=st.data(), old=st.booleans())
    def begin_a_round(self, number: int, data: st.DataObject, old: bool) -> None:
        """With a view in which every pod may be as it was at any time, or not there yet."""
        leader = self.leaders[number]
        view = [data.draw(st.sampled_from([None, *history])) if old else history[-1] for history in self.pods.values()]
        if not old or not leader.quotas:
            leader.quotas = dict(self.quotas)
        leader.round = reconcile(self._policies(leader.quotas), [pod for pod in view if pod is not None], self.now)
        leader.effect = next(leader.round)

    @rule(number=st.integers(0, LEADERS - 1), steps=st.integers(1, 12), lost=st.booleans(), back=st.integers(0, 3), lazy=st.booleans())
    def go_on(self, number: int, steps: int, lost: bool, back: int, lazy: bool) -> None:
        """Some effects of its round; the last one may be done and its answer lost, ledgers that it reads may be old, and frees may wait."""
        leader = self.leaders[number]
        for step in range(steps):
            if leader.round is None or leader.effect is None:
                return
            waits = lazy and isinstance(leader.effect, WriteLedger) and leader.effect.only_frees
            answer = None if waits else self._perform(leader, leader.effect, back)
            if lost and step == steps - 1:
                leader.round = None
                return
            try:
                leader.effect = leader.round.send(answer)
            except StopIteration:
                leader.round = None

    @rule(number=st.integers(0, LEADERS - 1))
    def die(self, number: int) -> None:
        self.leaders[number] = Leader()

    def _perform(self, leader: Leader, effect: Effect, back: int = 0) -> Any:
        match effect:
            case ReadLedger(queue=name):
                version = max(0, len(self.ledgers[name]) - 1 - back)
                return Ledger(version=str(version), grants=self.ledgers[name][version])
            case ConfirmOver(uid=uid):
                pod = self.pods[uid][-1]
                return pod is None or pod.phase == "ended"
            case TryGate(uid=uid):
                return "somebody refuses" if uid in self.refusing else ""
            case WriteLedger(queue=name, version=version, grants=grants):
                return self._write(leader, name, int(version), grants)
            case OpenGate(uid=uid):
                pod = self.pods[uid][-1]
                if pod is not None and pod.phase == "gated":
                    assert any(uid == each.uid for queue in self.ledgers.values() for grant in queue[-1] for each in grant.pods)
                    self.pods[uid].append(replace(pod, phase="open"))
        return None

    def _write(self, leader: Leader, name: str, version: int, grants: tuple[Grant, ...]) -> bool:
        if version != len(self.ledgers[name]) - 1:
            return False
        before = {grant.key for grant in self.ledgers[name][-1]}
        if any(grant.key not in before and not grant.foreign for grant in grants):
            assert sum(grant.gpus for grant in grants) <= leader.quotas[name], "a grant was added beyond the quota"
        kept = {each.uid for grant in grants for each in grant.pods}
        kept |= {each.uid for other, ledger in self.ledgers.items() if other != name for grant in ledger[-1] for each in grant.pods}
        for grant in self.ledgers[name][-1]:
            for each in grant.pods:
                pod = self.pods[each.uid][-1]
                assert each.uid in kept or pod is None or pod.phase == "ended", "a grant was taken from a pod that has not ended"
        self.ledgers[name].append(grants)
        self.most[name] = max(self.most[name], leader.quotas[name])
        return True

    def _policies(self, quotas: dict[str, int]) -> list[Queue]:
        def lane(name: str) -> tuple[Lane, ...]:
            return (Lane(name="l4", quota=((0.0, quotas[name]),)),)

        teams = [Queue(name=name, lanes=lane(name), order=self.order, pool=POOL, max_borrow=3) for name in TEAMS]
        return [*teams, Queue(name=POOL, lanes=lane(POOL))]

    # -- what holds --------------------------------------------------------------------------------------------------------

    @invariant()
    def open_pods_of_ours_never_exceed_the_quotas(self) -> None:
        open_gpus = sum(
            pod.gpus
            for history in self.pods.values()
            if (pod := history[-1]) is not None and pod.phase == "open" and not pod.uid.endswith("foreign")
        )
        assert open_gpus <= sum(self.most.values())

    @invariant()
    def no_pod_is_granted_twice_in_one_ledger(self) -> None:
        for ledger in self.ledgers.values():
            entered = [each.uid for grant in ledger[-1] for each in grant.pods]
            assert len(entered) == len(set(entered))

    def teardown(self) -> None:
        """One leader who sees things as they are lets everybody in who can ever start, and then has nothing left to write."""
        self.refusing.clear()
        self.quotas = dict.fromkeys(self.quotas, 12)
        for _ in range(4 * len(self.pods) + 8):
            before = {name: len(versions) for name, versions in self.ledgers.items()}
            self._whole_round()
            running = [uid for uid, history in self.pods.items() if history[-1] is not None and history[-1].phase == "open"]
            if not running and before == {name: len(versions) for name, versions in self.ledgers.items()}:
                break
            for uid in running:
                self.pods[uid].append(None)
        waiting = [pod for history in self.pods.values() if (pod := history[-1]) is not None and pod.phase == "gated"]
        assert all(pod.group is not None for pod in waiting), "somebody was forgotten"
        for pod in waiting:
            siblings = [other for other in waiting if other.key == pod.key]
            assert len(siblings) < pod.size, "a whole group was forgotten"
        assert all(not versions[-1] for versions in self.ledgers.values())

    def _whole_round(self) -> None:
        leader = Leader(quotas=dict(self.quotas))
        seen = [pod for history in self.pods.values() if (pod := history[-1]) is not None]
        converse(reconcile(self._policies(leader.quotas), seen, self.now), lambda effect: self._perform(leader, effect))


def test_a_pod_that_two_leaders_granted_in_two_ledgers_leaves_the_pools() -> None:
    pod = SeenPod(uid="x", namespace="red", name="x", phase="open", gpus=1, queue="red", lane="l4", since=0.0)
    own = Grant(key="x", namespace="red", name="x", lane="l4", pods=(Pod(uid="x", gpus=1),), at=1.0)
    cluster = Cluster()
    cluster.pods["x"] = [pod]
    cluster.ledgers["red"].append((own,))
    cluster.ledgers[POOL].append((replace(own, owner="red"),))
    cluster._whole_round()
    assert cluster.ledgers["red"][-1] == (own,)
    assert cluster.ledgers[POOL][-1] == ()


TestManyRounds = Cluster.TestCase
TestManyRounds.settings = settings(max_examples=300, stateful_step_count=80, deadline=None)
