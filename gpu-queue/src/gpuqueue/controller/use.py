"""What becomes of granted GPUs: asks Prometheus now and then how busy they are, adds up who held and used what, and climbs the ladder of a
queue's idle policy: an event as a warning, another when half of the grace is over, eviction only where the queue asks for it.

Also ends what runs longer than its run limit, where the queue enforces limits. Both need the permission to evict, which the chart gives on request
only. Nothing here is in the way of a grant: while nobody answers, use is unknown.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping

import aiohttp

from gpuqueue.accounts import account
from gpuqueue.cluster.api import Api
from gpuqueue.cluster.gpu_queues import IdleField, Policy
from gpuqueue.cluster.view import View
from gpuqueue.controller.messenger import Messenger
from gpuqueue.controller.settings import Settings, source
from gpuqueue.durations import seconds_of, words_of
from gpuqueue.errors import Conflict, Gone, GpuQueueError
from gpuqueue.metrics import Metrics
from gpuqueue.prometheus import Prometheus
from gpuqueue.queue import Grant
from gpuqueue.usage import Holder, IdlePolicy, PodKey, Rung, Sample, State, Step, Use, gpus_in, holders, ladder, look
from gpuqueue.words import gpus

_SECONDS = 60.0
_LONG = 15 * 60.0
"""What is asked about where there is no policy: the bill only."""
_METRIC = "DCGM_FI_PROF_GR_ENGINE_ACTIVE"
_NAMES = {"gr_engine_active": _METRIC, "sm_active": "DCGM_FI_PROF_SM_ACTIVE"}
"""Short names that a GpuQueue may use."""


class GpuUse:
    """Looks after granted GPUs, on the leader.

    Args:
        api: the API server.
        view: what has been heard.
        settings: whom to ask, and prices.
        metrics: told of use, idleness and accounts.
        messenger: tells people.
        leading: whether this replica leads.
        trouble: is told, in words, what went wrong.
    """

    def __init__(
        self,
        api: Api,
        view: View,
        settings: Settings,
        metrics: Metrics,
        messenger: Messenger,
        *,
        leading: Callable[[], bool],
        trouble: Callable[[str], None],
    ) -> None:
        self._api, self._view, self._settings, self._metrics, self._messenger = api, view, settings, metrics, messenger
        self._leading, self._trouble = leading, trouble
        self._uses: dict[str, Use] = {}
        self._rungs: dict[str, Rung] = {}
        self._looked = time.time()
        self._told: set[str] = set()
        """Keys of grants whose pods were told that their run limit is over: once is enough."""

    async def run(self) -> None:
        """Look every minute, for ever."""
        async with aiohttp.ClientSession() as session:
            asked = source(self._settings)
            prometheus = Prometheus(session, asked) if asked else None
            while True:
                await asyncio.sleep(_SECONDS)
                if self._leading():
                    await self.once(prometheus, time.time())
                else:
                    self._uses, self._rungs, self._looked = {}, {}, time.time()

    async def once(self, prometheus: Prometheus | None, now: float) -> None:
        """Look at everything once."""
        policies = dict(self._view.policies)
        uses: dict[str, Use] = {}
        rungs: dict[str, Rung] = {}
        held = self._holders(policies.values())
        for question, queues in _questions(policies).items():
            samples = await self._samples(prometheus, *question, now) if prometheus else {}
            idle = {name: policy for name in queues if (policy := idle_policy(policies[name].spec.idle)) is not None}
            found = look([holder for holder in held if holder.queue in queues], samples, idle, self._uses, now)
            uses |= found
            rungs |= ladder(found.values(), self._rungs, now)
        self._metrics.replace(self._metrics.idle_gpus, {(*key,): count for key, count in gpus_in(State.IDLE, uses.values()).items()})
        self._metrics.replace(
            self._metrics.unknown_use_gpus, {(*key,): count for key, count in gpus_in(State.UNKNOWN, uses.values()).items()}
        )
        self._metrics.add_accounts(account(uses.values(), max(0.0, now - self._looked)))
        await self._climb(rungs, uses, now)
        await self._enforce_limits(policies.values(), now)
        self._uses, self._rungs, self._looked = uses, rungs, now

    def _holders(self, policies: Iterable[Policy]) -> list[Holder]:
        started = {uid: pod.started for uid, pod in self._view.pods.items() if pod.started is not None}
        ended = {uid for uid, pod in self._view.pods.items() if pod.phase == "ended"}
        return [holder for policy in policies for holder in holders(policy.name, policy.grants, started, ended)]

    async def _samples(self, prometheus: Prometheus, metric: str, window: float, now: float) -> Mapping[PodKey, Sample]:
        try:
            return await prometheus.activity(metric, window, now)
        except GpuQueueError as error:
            self._trouble(str(error))
            return {}

    async def _climb(self, rungs: Mapping[str, Rung], uses: Mapping[str, Use], now: float) -> None:
        order = list(Step)
        for key, rung in rungs.items():
            before = self._rungs[key].step if key in self._rungs else Step.NONE
            members = [use for use in uses.values() if use.holder.grant == key]
            if order.index(rung.step) > order.index(before):
                self._metrics.idle_steps.labels(members[0].holder.queue, rung.step.value).inc()
                for use in members:
                    await self._messenger.about_pod(
                        use.holder.namespace, use.holder.name, use.holder.uid, "IdleGPUs", _idle_words(rung, use, now)
                    )
            if rung.step is Step.EVICT:
                for use in members:
                    await self._evict(use.holder.namespace, use.holder.name, use.holder.uid)

    async def _enforce_limits(self, policies: Iterable[Policy], now: float) -> None:
        over = [
            grant
            for policy in policies
            if policy.spec.enforce_run_limit
            for grant in policy.grants
            if now > grant.ends and not grant.foreign
        ]
        for grant in over:
            for pod in grant.pods:
                if pod.uid in self._view.pods and self._view.pods[pod.uid].phase == "open":
                    if grant.key not in self._told:
                        await self._messenger.about_pod(grant.namespace, pod.name, pod.uid, "RunLimit", _limit_words(grant, now))
                    await self._evict(grant.namespace, pod.name, pod.uid)
        self._told = {grant.key for grant in over}

    async def _evict(self, namespace: str, name: str, uid: str) -> None:
        """By the eviction API, which heeds disruption budgets; of exactly this pod. What is refused is tried again at the next look."""
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": name, "namespace": namespace},
            "deleteOptions": {"preconditions": {"uid": uid}},
        }
        try:
            await self._api.request("POST", f"/api/v1/namespaces/{namespace}/pods/{name}/eviction", body=body)
        except (Gone, Conflict):
            return
        except GpuQueueError as error:
            self._trouble(f"pod {namespace}/{name} should be evicted and was not: {error}")


def idle_policy(field: IdleField | None) -> IdlePolicy | None:
    """A queue's `spec.idle`, as the judge wants it; None where it means nothing."""
    if field is None:
        return None
    try:
        window, grace = seconds_of(field.lasting), seconds_of(field.grace)
    except ValueError:
        return None
    metric = _NAMES.get(field.metric, field.metric)
    return IdlePolicy(metric=metric, below=field.below, window=window, grace=grace, evict=field.action == "evict")


def _questions(policies: Mapping[str, Policy]) -> dict[tuple[str, float], set[str]]:
    """What to ask Prometheus (metric and window), and for which queues."""
    found: dict[tuple[str, float], set[str]] = {}
    for name, policy in policies.items():
        idle = idle_policy(policy.spec.idle)
        question = (idle.metric, idle.window) if idle else (_METRIC, _LONG)
        found.setdefault(question, set()).add(name)
    return found


def _idle_words(rung: Rung, use: Use, now: float) -> str:
    holder, policy = use.holder, use.policy
    since = words_of(now - rung.idle_since) if rung.idle_since is not None else "a while"
    text = f"{gpus(holder.gpus)} of lane {holder.lane} idle for {since}."
    if rung.step is Step.EVICT:
        return f"{text} The pod is evicted, as queue {holder.queue} has it."
    if policy is not None and policy.evict and rung.warned is not None:
        return f"{text} If that goes on, the pod is evicted in {words_of(max(0.0, rung.warned + policy.grace - now))}."
    return f"{text} Others may be waiting for them: gpuq queue {holder.queue}"


def _limit_words(grant: Grant, now: float) -> str:
    return f"It has run for {words_of(now - grant.at)}, longer than its run limit of {words_of(grant.limit or 0)}; its queue enforces limits, so it is evicted."
