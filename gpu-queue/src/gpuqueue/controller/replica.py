"""One replica: it follows the cluster, and while it leads it does rounds, tells people, measures, remembers and looks after granted GPUs.

Each of these is a loop of its own here, and a module of its own beside this one; what one hears, the others are told.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Coroutine
from typing import Any

import msgspec
import structlog

from gpuqueue.cluster import gpu_queues, pods
from gpuqueue.cluster.api import Api, backoff
from gpuqueue.cluster.archive import Archive
from gpuqueue.cluster.board import Board
from gpuqueue.cluster.board import board as board_of
from gpuqueue.cluster.forecast import Forecast
from gpuqueue.cluster.gpu_queues import Policy
from gpuqueue.cluster.lease import Leadership
from gpuqueue.cluster.owners import Owners
from gpuqueue.cluster.view import PodSink, PolicySink, View
from gpuqueue.cluster.watch import Follower
from gpuqueue.controller.dispatch import Dispatch
from gpuqueue.controller.gates import Gates, Opened
from gpuqueue.controller.gauges import set_gauges, set_truth
from gpuqueue.controller.messenger import Budget, Messenger
from gpuqueue.controller.notes import notes_of
from gpuqueue.controller.rounds import Rounds
from gpuqueue.controller.settings import Settings
from gpuqueue.controller.use import GpuUse
from gpuqueue.errors import GpuQueueError, Refused, Unavailable
from gpuqueue.labels import MANAGED
from gpuqueue.metrics import Metrics

_ALL_PODS = "/api/v1/pods"
_MEASURE_SECONDS = 2.0
_ESTIMATE_SECONDS = 5.0
_ARCHIVE_SECONDS = 20.0
_EXPIRE_EVERY = 500
_RELOAD_EVERY = 15
_BOARD_SECONDS = 0.5
_STALE_SECONDS = 180.0
"""Bookmarks come every minute; without any for so long, watches are dead and their deadlines failed to notice."""
log = structlog.get_logger()


_POD = msgspec.json.Decoder(pods.PodObject)


class Controller:
    """All the pieces of one replica."""

    def __init__(self, api: Api, settings: Settings, metrics: Metrics, *, namespace: str, identity: str) -> None:
        self.settings, self.metrics = settings, metrics
        self._board: Board | None = None
        self._board_until = 0.0
        self._complained: set[tuple[str, str]] = set()
        self.api = api
        self._heard_for: dict[str, float] = {}
        """Uid of a pod whose gate is being opened -> when the news came that let it (monotonic)."""
        self.owners = Owners(api, self._owner_changed)
        self.dispatch = Dispatch(
            self._round,
            self._groups,
            coalesce=settings.coalesce_seconds,
            tick=settings.tick_seconds,
            trouble=self._round_failed,
        )
        self.view = View(self.owners, self.dispatch.hear)
        self.leadership = Leadership(api, namespace=namespace, name="gpu-queue", identity=identity, seconds=settings.lease_seconds)
        self.forecast = Forecast()
        self.archive = Archive(api, namespace=namespace, days=settings.history_days)
        self.gates = Gates(api, asyncio.Semaphore(settings.parallel_gates), self._gate_done, self.view.block)
        self.messenger = Messenger(
            api,
            identity=identity,
            budget=Budget(settings.tell_per_second),
            top=settings.tell_top,
            surface=settings.surface_in_argo,
            events=settings.events,
            told=lambda how: metrics.told.labels(how).inc(),
            trouble=self._trouble,
        )
        self.use = GpuUse(api, self.view, settings, metrics, self.messenger, leading=lambda: self.leadership.leading, trouble=self._trouble)
        self.rounds = Rounds(api, self.view, self.gates, written=self._written, conflicted=self._conflicted, later=self._hear_later)
        self.pods_followed = Follower(
            api, _ALL_PODS, read=self._read_pod, sink=PodSink(self.view), query={"labelSelector": f"{MANAGED}=true"}, trouble=self._trouble
        )
        self.queues_followed = Follower(api, gpu_queues.PATH, read=self._read_policy, sink=PolicySink(self.view), trouble=self._trouble)
        metrics.view_age_seconds.set_function(lambda: min(1e6, max(self.pods_followed.age, self.queues_followed.age)))

    async def run(self) -> None:
        """Run until cancelled."""
        parts: list[Coroutine[Any, Any, None]] = [
            self.leadership.run(),
            self.pods_followed.run(),
            self.queues_followed.run(),
            self.gates.watch_rules(),
            self._look_for_unmanaged(),
            self.dispatch.run(lambda: self.synced and self.leadership.leading),
            self._learn_owners(),
            self._tell(),
            self._measure(),
            self._look_ahead(),
            self._archive(),
            self.use.run(),
        ]
        try:
            async with asyncio.TaskGroup() as tasks:
                for part in parts:
                    tasks.create_task(part)
        finally:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.dispatch.settled(), 5)
                await asyncio.wait_for(self.gates.settled(), 5)
            with contextlib.suppress(GpuQueueError, TimeoutError):
                await asyncio.wait_for(self.archive.flush(), 5)
            await self.leadership.release()

    @property
    def synced(self) -> bool:
        """Whether this replica has heard of everything once."""
        return self.pods_followed.synced and self.queues_followed.synced

    # -- the loops ---------------------------------------------------------------------------------------------------------

    async def _round(self, group: frozenset[str], heard: float) -> bool:
        """One round over queues that belong together; whether another is due at once."""
        if not self.leadership.leading:
            return False
        started = time.monotonic()
        report = await self.rounds.once(group)
        self.metrics.round_seconds.observe(time.monotonic() - started)
        self._heard_for.update((uid, heard) for uid in report.opened if uid not in self._heard_for)
        await self.rounds.summarize(group)
        return bool(report.conflicts)

    async def _learn_owners(self) -> None:
        """Read what owners say of their pods, soon after somebody asked."""
        while True:
            await self.owners.wanted()
            await self.owners.learn()

    async def _look_for_unmanaged(self) -> None:
        """Find pods that hold GPUs in queues' namespaces and never met the gate."""
        while True:
            found: list[pods.Facts] = []
            try:
                for namespace in list(self.view.namespaces):
                    found += await pods.unmanaged_in(self.api, namespace, self.settings.gpus)
                self.view.replace_unmanaged(found)
            except (Refused, Unavailable) as error:
                self._trouble(f"looking for pods without our label: {error}")
            await asyncio.sleep(self.settings.look_for_unmanaged_seconds if self.view.namespaces else 1.0)

    async def _tell(self) -> None:
        """Tell people where they stand, for as long as this replica leads."""
        while True:
            started = time.monotonic()
            if self.synced and self.leadership.leading:
                board = self.board
                await self.messenger.tell(notes_of(board, self.view, self.gates.refusal))
                await self._complain()
                self.messenger.forget(self.view.pods)
                self.gates.forget(self.view.pods)
                self.view.prune()
                self.rounds.forget_the_gone()
            await asyncio.sleep(max(0.5, 20 * (time.monotonic() - started)))

    async def _look_ahead(self) -> None:
        """Learn from the past and estimate starts, on every replica: each shows them on its page."""
        await self._load_history()
        while True:
            took = await self.forecast.look_ahead(self.board) if self.synced else 0.0
            await asyncio.sleep(max(_ESTIMATE_SECONDS, 20 * took))

    async def _load_history(self) -> None:
        failed = 0
        while True:
            try:
                self.forecast.learn(await self.archive.load())
            except (Refused, Unavailable) as error:
                self._trouble(f"history: {error}")
                await backoff(failed)
                failed += 1
            else:
                return

    async def _archive(self) -> None:
        """Write down what has ended, for as long as this replica leads; take in what the leader wrote, otherwise."""
        rounds = 0
        while True:
            await asyncio.sleep(_ARCHIVE_SECONDS)
            rounds += 1
            try:
                await self.archive.flush()
                if self.leadership.leading and rounds % _EXPIRE_EVERY == 0:
                    await self.archive.expire()
                if not self.leadership.leading and rounds % _RELOAD_EVERY == 0:
                    self.forecast.learn_anew(await self.archive.load())
            except (Refused, Unavailable) as error:
                self._trouble(f"history: {error}")

    async def _complain(self) -> None:
        """An event on each queue that has something to mend, once for each thing."""
        texts = [(name, "ToMend", text) for name, text in self.view.twice.items()]
        texts += [(policy.name, "ToMend", complaint) for policy in self.view.policies.values() for complaint in policy.complaints]
        now = time.time()
        texts += [(policy.name, "Budget", text) for policy in self.view.policies.values() if (text := policy.budget_warning(now))]
        for name, reason, text in texts:
            if (name, text) not in self._complained and (policy := self.view.policies.get(name)) is not None:
                self._complained.add((name, text))
                await self.messenger.about_queue(name, policy.uid, reason, text)
        self._complained.intersection_update((name, text) for name, _, text in texts)

    async def _measure(self) -> None:
        """Set the gauges; say nothing of queues while another leads."""
        led = False
        while True:
            leading = self.leadership.leading
            if leading and self.synced:
                set_gauges(self.metrics, self.board, self.view)
                set_truth(self.metrics, self.forecast.truth(time.time()))
                self.metrics.expect_queues(self.view.policies)
                self.metrics.forget_queues(self.view.policies)
            elif led:
                self.metrics.stand_down()
            led = leading
            self.metrics.leader.set(leading)
            await asyncio.sleep(_MEASURE_SECONDS)

    @property
    def board(self) -> Board:
        """The picture as this replica sees it; not older than a second, or ten times what it took to make."""
        if time.monotonic() > self._board_until or self._board is None:
            started = time.monotonic()
            self._board = board_of(self.view, time.time(), starts=self.forecast.starts)
            self._board_until = time.monotonic() + max(_BOARD_SECONDS, 10 * (time.monotonic() - started))
        return self._board

    def find(self, namespace: str, name: str) -> str:
        """The uid of a pod; empty if nobody has heard of it."""
        return next((pod.uid for pod in self.view.pods.values() if (pod.namespace, pod.name) == (namespace, name)), "")

    def why_not_ready(self) -> str:
        """Empty if this replica knows what there is to know."""
        if not self.synced:
            return "has not heard of every pod and queue yet"
        stale = max(self.pods_followed.age, self.queues_followed.age)
        return "" if stale < _STALE_SECONDS else f"has not heard from the API server for {stale:.0f} s"

    def _groups(self) -> list[frozenset[str]]:
        return self.view.groups()

    def _round_failed(self, group: frozenset[str], error: Exception) -> None:
        self.metrics.errors.labels("round").inc()
        foreseen = isinstance(error, GpuQueueError)
        log.warning("round failed", queues=sorted(group), text=str(error), exc_info=None if foreseen else error)

    # -- what the pieces tell ----------------------------------------------------------------------------------------------

    def _owner_changed(self) -> None:
        self.view.owner_changed()

    def _read_pod(self, item: msgspec.Raw) -> tuple[str, str, pods.Facts]:
        pod = _POD.decode(item)
        return pod.metadata.uid, pod.metadata.resource_version, pods.facts(pod, self.settings.gpus)

    def _read_policy(self, item: msgspec.Raw) -> tuple[str, str, Policy]:
        policy = gpu_queues.read(item)
        for complaint in policy.complaints:
            log.warning("queue", queue=policy.name, complaint=complaint)
        return policy.name, policy.version, policy

    def _gate_done(self, gate: Opened) -> None:
        if gate.pod:  # sooner than the watch tells, so that it is not opened again meanwhile
            self.view.put_pod(self._read_pod(msgspec.Raw(gate.pod))[2])
        heard = self._heard_for.pop(gate.uid, None)
        if heard is not None and not gate.refusal:
            self.metrics.gate_open_seconds.observe(time.monotonic() - heard)
        if gate.refusal:
            self.metrics.gate_refusals.labels(self._queue_of(gate.uid)).inc()
            log.warning("gate refused", uid=gate.uid, refusal=gate.refusal)

    def _written(self, before: Policy, after: Policy) -> None:
        self.metrics.ledger_writes.labels(before.name).inc()
        known, kept = {grant.key for grant in before.grants}, {grant.key for grant in after.grants}
        for grant in after.grants:
            if grant.key not in known and not grant.foreign and grant.since is not None:
                self.metrics.wait_seconds.labels(grant.owner or before.name, grant.lane).observe(max(0.0, grant.at - grant.since))
        now = time.time()
        ended = [
            self.forecast.past_of(grant.owner or before.name, grant, self.rounds.over_since.get(grant.key, now))
            for grant in before.grants
            if grant.key not in kept and not grant.foreign
        ]
        self.forecast.learn(ended)
        self.archive.add(ended)

    def _queue_of(self, uid: str) -> str:
        pod = self.view.pods.get(uid)
        return self.view.namespaces.get(pod.namespace, "") if pod else ""

    def _hear_later(self, queue: str, seconds: float) -> None:
        asyncio.get_running_loop().call_later(seconds, self.dispatch.hear, queue)

    def _conflicted(self, queue: str) -> None:
        self.metrics.ledger_conflicts.labels(queue).inc()

    def _trouble(self, text: str) -> None:
        self.metrics.errors.labels("api").inc()
        log.warning("trouble", text=text)
