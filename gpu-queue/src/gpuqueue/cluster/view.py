"""What a replica has heard of the cluster: queues, managed pods, and pods with GPUs that are not managed.

It may be old at any time; `reconcile` is written for that. Watches put things in, the rounds take `seen` and `queues` out.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from gpuqueue.cluster.gpu_queues import Policy, claims
from gpuqueue.cluster.owners import Owners
from gpuqueue.cluster.pods import Facts
from gpuqueue.queue import Queue
from gpuqueue.reconcile import Ledger, SeenPod


class View:
    """The cluster, as far as heard.

    Args:
        owners: know which pods start together.
        changed: is called when something was heard that a round should look at, with the queue that it concerns, or None for all.
    """

    def __init__(self, owners: Owners, changed: Callable[[str | None], None]) -> None:
        self.pods: dict[str, Facts] = {}
        """By uid; those with our label."""
        self.unmanaged: dict[str, Facts] = {}
        """By uid: pods of queues' namespaces that ask for GPUs and lack our label. Looked for now and then."""
        self.policies: dict[str, Policy] = {}
        self.namespaces: dict[str, str] = {}
        """Namespace -> its queue."""
        self.twice: dict[str, str] = {}
        """Queue -> what is to be said about a namespace that it claims and that is another's."""
        self.blocked: dict[str, str] = {}
        """Uid -> who refuses to let its gate be opened, as a trial has shown."""
        self._owners, self._changed = owners, changed
        self._placed: dict[str, SeenPod] = {}
        self._inside: defaultdict[str, set[str]] = defaultdict(set)
        """Namespace -> uids of its managed pods."""

    # -- what the rounds take ----------------------------------------------------------------------------------------------

    def groups(self) -> list[frozenset[str]]:
        """The queues, apart where nothing that happens in one matters in another: together are those that lend and borrow."""
        together = {name: {name} for name in self.policies}
        for name, policy in self.policies.items():
            pool = policy.spec.pool.name if policy.spec.pool else name
            if pool in together and together[pool] is not together[name]:
                joined = together[pool] | together[name]
                together.update(dict.fromkeys(joined, joined))
        return list({id(group): frozenset(group) for group in together.values()}.values())

    def queues(self, now: float, names: Collection[str] | None = None) -> list[Queue]:
        """Every queue, or those of these names, as their policies have them now."""
        return [policy.queue(now) for name, policy in self.policies.items() if names is None or name in names]

    def ledger(self, name: str) -> Ledger | None:
        """A queue's ledger, as last heard or written; None if there is no such queue."""
        policy = self.policies.get(name)
        return None if policy is None else Ledger(version=policy.version, grants=policy.grants)

    def seen(self, names: Collection[str] | None = None) -> list[SeenPod]:
        """Every pod that holds GPUs or waits for them, with the queue, lane and group that it belongs to; or those of these queues."""
        found = []
        for pod in self._all() if names is None else self._of(names):
            placed = self._placed.get(pod.uid)
            if placed is None:
                placed = self._place(pod)
                if not placed.blocked or pod.uid in self.blocked:
                    self._placed[pod.uid] = placed
            found.append(placed)
        self._look_at_incomplete(found)
        return found

    def place(self, pod: Facts) -> str | None:
        """The name of the lane of a pod."""
        policy = self.policies.get(self.namespaces.get(pod.namespace, ""))
        return policy.lane_for(pod.pins) if policy else None

    def orphans(self) -> list[Facts]:
        """Pods behind the gate in namespaces of no queue."""
        return [pod for pod in self.pods.values() if pod.phase == "gated" and pod.namespace not in self.namespaces]

    def owner_changed(self) -> None:
        """Something was learned about who starts with whom."""
        self._placed.clear()
        self._changed(None)

    def block(self, uid: str, refusal: str) -> None:
        """A trial has shown who refuses to let a gate be opened; empty: nobody does any more."""
        if refusal:
            self.blocked[uid] = refusal
        else:
            self.blocked.pop(uid, None)
            self._changed(None)
        self._placed.pop(uid, None)

    def prune(self) -> None:
        """Forget pods that have ended and that no ledger names."""
        named = {pod.uid for policy in self.policies.values() for grant in policy.grants for pod in grant.pods}
        for uid in [uid for uid, pod in self.pods.items() if pod.phase == "ended" and uid not in named]:
            self._forget(uid)
        for uid in self.blocked.keys() - self.pods.keys():
            del self.blocked[uid]

    def _all(self) -> Iterable[Facts]:
        yield from self.pods.values()
        yield from (pod for uid, pod in self.unmanaged.items() if uid not in self.pods)

    def _of(self, names: Collection[str]) -> Iterable[Facts]:
        for namespace in [namespace for namespace, queue in self.namespaces.items() if queue in names]:
            yield from (self.pods[uid] for uid in self._inside[namespace])
        for uid, pod in self.unmanaged.items():
            if uid not in self.pods and self.namespaces.get(pod.namespace) in names:
                yield pod

    def _forget(self, uid: str) -> bool:
        pod = self.pods.pop(uid, None)
        self._placed.pop(uid, None)
        if pod is not None:
            self._inside[pod.namespace].discard(uid)
        return pod is not None

    def _place(self, pod: Facts) -> SeenPod:
        group, trouble = self._owners.group_of(pod)
        return SeenPod(
            uid=pod.uid,
            namespace=pod.namespace,
            name=pod.name,
            phase=pod.phase,
            gpus=pod.gpus,
            queue=self.namespaces.get(pod.namespace, ""),
            lane=self.place(pod),
            since=pod.since,
            group=group.name,
            size=group.size,
            run_limit=pod.run_limit,
            blocked=trouble or self.blocked.get(pod.uid, ""),
            family=pod.family,
        )

    def _look_at_incomplete(self, found: Iterable[SeenPod]) -> None:
        """Ask owners again whose groups are short of pods, as when a Job has been scaled or is near its end."""
        waiting = [pod for pod in found if pod.group is not None and pod.phase == "gated"]
        present = Counter(pod.key for pod in waiting)
        for pod in waiting:
            if present[pod.key] != pod.size and (known := self.pods.get(pod.uid)):
                self._owners.ask_again(known)

    # -- what the watches put ----------------------------------------------------------------------------------------------

    def put_pod(self, pod: Facts) -> None:
        """A managed pod is new or has changed. What is older than what we know, our own writes included, is no news."""
        before = self.pods.get(pod.uid)
        if before is not None and not _newer(pod.version, before.version):
            return
        self.pods[pod.uid] = pod
        self._inside[pod.namespace].add(pod.uid)
        if before is None or _matters(before) != _matters(pod):
            self._placed.pop(pod.uid, None)
            self._changed(self.namespaces.get(pod.namespace, ""))

    def drop_pod(self, pod: Facts) -> None:
        """It is not selected any more. That it has lost our label and runs on looks the same, so that it is over must be asked."""
        if pod.phase == "ended":
            self.put_pod(pod)
        elif self._forget(pod.uid):
            self._changed(self.namespaces.get(pod.namespace, ""))

    def replace_pods(self, pods: Mapping[str, Facts]) -> int:
        """All managed pods."""
        before = {uid: (pod.version, pod.phase) for uid, pod in self.pods.items() if pod.phase != "ended"}
        after = {uid: (pod.version, pod.phase) for uid, pod in pods.items() if pod.phase != "ended"}
        self.pods = dict(pods)
        self._inside.clear()
        for uid, pod in pods.items():
            self._inside[pod.namespace].add(uid)
        self._placed.clear()
        self._changed(None)
        return len(dict(before.items() ^ after.items()))

    def replace_unmanaged(self, pods: Iterable[Facts]) -> None:
        """All pods with GPUs and without our label in the queues' namespaces."""
        found = {pod.uid: pod for pod in pods}
        if found.keys() != self.unmanaged.keys():
            self._changed(None)
        for uid in self.unmanaged.keys() | found.keys():
            self._placed.pop(uid, None)
        self.unmanaged = found

    def put_policy(self, policy: Policy) -> None:
        """A queue is new or has changed. What is older than what we know, our own writes included, is no news."""
        held = self.policies.get(policy.name)
        if held is not None and not _newer(policy.version, held.version):
            return
        self.policies[policy.name] = policy
        if held is None or held.spec != policy.spec:
            self._replace_all()
            self._changed(None)
        elif held.grants != policy.grants:
            self._changed(policy.name)

    def drop_policy(self, policy: Policy) -> None:
        """A queue is gone."""
        self.policies.pop(policy.name, None)
        self._replace_all()
        self._changed(None)

    def replace_policies(self, policies: Mapping[str, Policy]) -> int:
        """All queues."""
        before = {name: policy.version for name, policy in self.policies.items()}
        by_name = {policy.name: policy for policy in policies.values()}
        for name in before.keys() - by_name.keys():
            self.drop_policy(self.policies[name])
        for policy in by_name.values():
            self.put_policy(policy)
        return len(dict(before.items() ^ {name: policy.version for name, policy in by_name.items()}.items()))

    def _replace_all(self) -> None:
        self.namespaces, self.twice = claims(self.policies.values())
        self._placed.clear()


@dataclass(frozen=True, slots=True)
class PodSink:
    """The pods of a view, as a watch tells of them."""

    view: View

    def replace(self, things: Mapping[str, Facts]) -> int:
        """All of them."""
        return self.view.replace_pods(things)

    def put(self, thing: Facts) -> None:
        """One."""
        self.view.put_pod(thing)

    def drop(self, thing: Facts) -> None:
        """One less."""
        self.view.drop_pod(thing)


@dataclass(frozen=True, slots=True)
class PolicySink:
    """The queues of a view, as a watch tells of them."""

    view: View

    def replace(self, things: Mapping[str, Policy]) -> int:
        """All of them."""
        return self.view.replace_policies(things)

    def put(self, thing: Policy) -> None:
        """One."""
        self.view.put_policy(thing)

    def drop(self, thing: Policy) -> None:
        """One less."""
        self.view.drop_policy(thing)


def _matters(pod: Facts) -> tuple[object, ...]:
    """What of a pod a round looks at."""
    return (pod.phase, pod.gpus, pod.pins, pod.group, pod.size, pod.run_limit)


def _newer(version: str, held: str) -> bool:
    """Resource versions of one kind are whole numbers that grow (comparable since Kubernetes 1.35, and as etcd has always made them)."""
    return int(version) > int(held) if version.isdecimal() and held.isdecimal() else version != held
