"""Who may start: the whole rule of the queue, as one pure function of what is known.

`decide` takes every queue with its ledger and its waiting requests, and returns the ledgers as they should be. It neither reads a
clock nor remembers anything: two replicas that see the same decide the same, a restart changes nothing, and the simulator and
`gpuq what-if` call this very function.

What holds of the result, whatever the input (tests explore it exhaustively in small worlds):

- A new grant fits: after it, the grants of its lane do not exceed the quota in force. A quota that was cut takes nothing back.
- A grant leaves the ledger only when all of its pods are in `ended`.
- A group is granted whole or not at all.
- `strict`: nobody starts before somebody ahead of them in the lane. `easy`: somebody behind the head starts only if the head's
  expected start, by the declared limits, does not move (EASY backfilling: Lifka, "The ANL/IBM SP Scheduling System", 1995).
- A request that can never start is told so and passed by; it is no cork.
- A ledger never grows beyond what can be written (`LEDGER_BYTES`): where one is full, its line stands still until something ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from gpuqueue.queue import FOREVER, LEDGER_BYTES, MOST_PODS, Grant, Lane, Queue, Reason, Request, Wait

_AHEAD_NAMED = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What should become of one queue."""

    ledger: tuple[Grant, ...]
    """As it should be written; what it already was if nothing changes."""
    granted: tuple[Grant, ...] = ()
    released: tuple[Grant, ...] = ()
    waits: tuple[Wait, ...] = ()


def decide(queues: Sequence[Queue], now: float, *, explain: bool = True) -> dict[str, Outcome]:
    """The outcome of each queue, by name.

    Args:
        queues: all of them; a queue's pool is one of them.
        now: the moment, seconds since the epoch.
        explain: whether to say why each request waits. It changes nothing else, and costs most of the time of a long line.
    """
    lent_from = {queue.pool for queue in queues}
    pools = {queue.name: _Pool(queue, now) for queue in queues if queue.name in lent_from}
    lines = [_Line(queue, pools.get(queue.pool or ""), now) for queue in sorted(queues, key=lambda q: q.name)]
    for line in lines:
        line.serve()
    _lend(lines, pools)
    outcomes = {line.queue.name: line.outcome(explain=explain) for line in lines}
    for name, pool in pools.items():
        lent = tuple(pool.lent)
        outcomes[name] = replace(outcomes[name], ledger=outcomes[name].ledger + lent, granted=outcomes[name].granted + lent)
    return outcomes


class _Pool:
    """What a shared queue can still lend. Its own line is served before anybody borrows."""

    def __init__(self, queue: Queue, now: float) -> None:
        self.queue = queue
        self.now = now
        self.lent: list[Grant] = []
        self.free: dict[str, int] = {}
        """By lane, once its own line is served."""
        self.room = 0
        """Bytes of its ledger, likewise."""

    def borrowed_by(self, owner: str) -> int:
        alive = [grant for grant in self.queue.ledger if grant.owner == owner and not _over(grant, self.queue.ended)]
        return sum(grant.gpus for grant in [*alive, *(grant for grant in self.lent if grant.owner == owner)])

    def could_ever(self, request: Request, most: int) -> bool:
        lane = self.queue.lane(request.lane)
        return lane is not None and request.gpus <= min(most, lane.largest)

    def lend(self, request: Request, owner: Queue) -> bool:
        """Grant `request` from this pool's ledger, if it is free and `owner` may still borrow so much."""
        if request.gpus > self.free.get(request.lane or "", 0) or self.borrowed_by(owner.name) + request.gpus > owner.max_borrow:
            return False
        grant = _grant(request, owner, self.now, owner=owner.name)
        if grant.weight > self.room:
            return False
        self.room -= grant.weight
        self.free[request.lane or ""] -= request.gpus
        self.lent.append(grant)
        return True


class _Line:
    """One queue while it is being served."""

    def __init__(self, queue: Queue, pool: _Pool | None, now: float) -> None:
        self.queue, self.pool, self.now = queue, pool, now
        self.released = tuple(grant for grant in queue.ledger if _over(grant, queue.ended))
        self.kept = [grant for grant in queue.ledger if grant not in self.released]
        self.granted: list[Grant] = []
        self.room = LEDGER_BYTES - sum(grant.weight for grant in self.kept)
        self.full = False
        """Whether something was kept out of the ledger because it has no room."""
        self.waits: dict[str, Wait] = {}
        self.largest = {lane.name: lane.largest for lane in queue.lanes}
        self.lines: dict[str, list[Request]] = {lane.name: [] for lane in queue.lanes}
        """Those of each lane that can start, in order, without those already granted."""

    def serve(self) -> None:
        """Adopt what runs already, put the requests in line, and grant what fits."""
        known = {pod.uid for grant in self.kept for pod in grant.pods}
        for found in sorted(self.queue.found, key=lambda request: request.rank):
            pods = tuple(pod for pod in found.pods if pod.uid not in known and pod.uid not in self.queue.ended)
            adopted = replace(_grant(found, self.queue, self.now), foreign=True, lane=found.lane or self._first_lane(), pods=pods)
            if pods:
                self._enter(adopted)
        held = {grant.key for grant in self.kept}
        for request in sorted(self.queue.waiting, key=lambda request: request.rank):
            if request.key in held:
                self._let_replacements_in(request)
            elif (reason := self._cork(request)) is not None:
                self._tell(request, reason, place=0, of=0)
            else:
                self.lines[str(request.lane)].append(request)
        if not self.budget_spent:
            for lane in self.queue.lanes:
                self.serve_lane(lane)

    def outcome(self, *, explain: bool) -> Outcome:
        """What has been decided."""
        for lane in self.queue.lanes if explain else ():
            self._tell_line(lane)
        changed = bool(self.released or self.granted) or tuple(self.kept) != self.queue.ledger
        ledger = (*self.kept, *self.granted) if changed else self.queue.ledger
        return Outcome(ledger=ledger, granted=tuple(self.granted), released=self.released, waits=tuple(self.waits.values()))

    def free(self, lane: Lane) -> int:
        """GPUs of `lane` that nobody holds; negative where the quota was cut or foreign pods run."""
        return lane.now - sum(grant.gpus for grant in (*self.kept, *self.granted) if grant.lane == lane.name)

    def _first_lane(self) -> str:
        return self.queue.lanes[0].name if self.queue.lanes else ""

    def _enter(self, grant: Grant) -> bool:
        """Put it into the ledger, if that has room for it; once something was kept out, nothing else gets in.

        So nobody overtakes, and nobody starts while somebody holds GPUs who could not be counted.
        """
        self.full |= grant.weight > self.room
        if self.full:
            return False
        self.room -= grant.weight
        self.granted.append(grant)
        return True

    @property
    def budget_spent(self) -> bool:
        """Whether nothing new may start in this period."""
        budget = self.queue.budget
        return budget is not None and budget.hold and budget.spent >= budget.gpu_seconds

    def _cork(self, request: Request) -> Reason | None:
        """What keeps the request itself from ever starting as it is."""
        if request.lane not in self.largest:
            return Reason.NO_LANE
        if not request.sizes_agree or len(request.pods) > request.size:
            return Reason.CONFUSED
        if len(request.pods) < request.size:
            return Reason.INCOMPLETE
        if request.size > MOST_PODS:
            return Reason.CONFUSED
        if request.gpus > self.largest[request.lane] and not (self.pool and self.pool.could_ever(request, self.queue.max_borrow)):
            return Reason.TOO_LARGE
        return Reason.BLOCKED if request.blocked else None

    def _let_replacements_in(self, request: Request) -> None:
        """Pods that a group made anew take the places of its pods that ended: the grant stays as large as it was."""
        at = next(i for i, grant in enumerate(self.kept) if grant.key == request.key)
        pods = list(self.kept[at].pods)
        for pod in request.pods:
            if any(pod.uid == old.uid for old in pods):
                continue
            place = next((i for i, old in enumerate(pods) if old.uid in self.queue.ended and old.gpus >= pod.gpus), None)
            if place is None:
                self._tell(request, Reason.CONFUSED, place=0, of=0)
                return
            pods[place] = replace(pod, gpus=pods[place].gpus)
        if tuple(pods) != self.kept[at].pods:
            self.kept[at] = replace(self.kept[at], pods=tuple(pods))

    def serve_lane(self, lane: Lane) -> None:
        """Grant from the front of a lane while it fits; then, in EASY order, from behind."""
        line, free = self.lines[lane.name], self.free(lane)
        while line and line[0].gpus <= free:
            if not self._enter(_grant(line[0], self.queue, self.now)):
                return
            free -= line.pop(0).gpus
        if line and self.queue.order == "easy" and free > 0:
            self._backfill(lane, line, free)

    def _backfill(self, lane: Lane, line: list[Request], free: int) -> None:
        """Start those behind the head that leave it enough GPUs at the moment when it is expected to start."""
        running = [grant for grant in (*self.kept, *self.granted) if grant.lane == lane.name]
        start, spare = expected_start(lane, running, line[0].gpus, self.now)
        for request in line[1:]:
            if free <= 0:
                return
            over = self.now + (_limit(request, self.queue) or FOREVER) <= start < FOREVER
            if request.gpus <= free and (over or request.gpus <= spare):
                if not self._enter(_grant(request, self.queue, self.now)):
                    return
                free -= request.gpus
                spare -= 0 if over else request.gpus
                line.remove(request)

    def _tell_line(self, lane: Lane) -> None:
        line, free = self.lines[lane.name], self.free(lane)
        for place, request in enumerate(line, start=1):
            if self.budget_spent:
                reason = Reason.BUDGET
            elif place == 1:
                reason = Reason.LEDGER if request.gpus <= free else Reason.FULL
            else:
                could_pass = self.queue.order == "easy" and request.gpus <= free and not self.full
                reason = Reason.WOULD_DELAY if could_pass else Reason.BEHIND
            ahead = tuple(other.key for other in line[: min(place - 1, _AHEAD_NAMED)])
            self._tell(request, reason, place=place, of=len(line), ahead=ahead, free=max(free, 0), quota=lane.now)

    def _tell(
        self, request: Request, reason: Reason, *, place: int, of: int, ahead: tuple[str, ...] = (), free: int = 0, quota: int = 0
    ) -> None:
        detail: Mapping[str, object] = {
            "gpus": request.gpus,
            "free": free,
            "quota": quota,
            "pods": len(request.pods),
            "size": request.size,
            "blocked": request.blocked,
        }
        self.waits[request.key] = Wait(key=request.key, lane=request.lane, reason=reason, place=place, of=of, ahead=ahead, detail=detail)


def _lend(lines: Sequence[_Line], pools: Mapping[str, _Pool]) -> None:
    """Let the heads of lines that are full borrow, whoever has waited longest first; each time the next in its line moves up."""
    for line in lines:
        if line.queue.name in pools:
            pools[line.queue.name].room = 0 if line.full else line.room
            pools[line.queue.name].free = {lane.name: line.free(lane) for lane in line.queue.lanes if not line.lines[lane.name]}
    borrowers = [line for line in lines if line.pool is not None and line.queue.name not in pools and not line.budget_spent]
    while True:
        heads = [(line.lines[lane.name][0], line, lane) for line in borrowers for lane in line.queue.lanes if line.lines[lane.name]]
        for request, line, lane in sorted(heads, key=lambda head: head[0].rank):
            if line.pool is not None and line.pool.lend(request, line.queue):
                line.lines[lane.name].pop(0)
                line.serve_lane(lane)
                break
        else:
            return


def expected_start(lane: Lane, running: Iterable[Grant], gpus: int, now: float) -> tuple[float, int]:
    """When `gpus` GPUs of `lane` are expected to be free, by the limits of what runs, and how many more are then.

    A grant that has outlived its limit may end at any moment, so it counts as ending now.

    Returns:
        The moment, `FOREVER` if no limit tells, and the GPUs to spare at that moment.
    """
    ends = sorted((max(grant.ends, now), grant.gpus) for grant in running)
    held = sum(size for _, size in ends)
    moments = sorted({now, *(end for end, _ in ends if end < FOREVER), *(since for since, _ in lane.quota if since > now)})
    place = 0
    for moment in moments:
        while place < len(ends) and ends[place][0] <= moment:
            held -= ends[place][1]
            place += 1
        spare = lane.at(moment) - held - gpus
        if spare >= 0:
            return moment, spare
    return FOREVER, 0


def _over(grant: Grant, ended: frozenset[str]) -> bool:
    return all(pod.uid in ended for pod in grant.pods)


def _limit(request: Request, queue: Queue) -> float | None:
    return request.run_limit if request.run_limit is not None else queue.default_limit


def _grant(request: Request, queue: Queue, now: float, *, owner: str = "") -> Grant:
    return Grant(
        key=request.key,
        namespace=request.namespace,
        name=request.name,
        lane=request.lane or "",
        pods=request.pods,
        at=now,
        limit=_limit(request, queue),
        owner=owner,
        family=request.family,
        since=request.since,
    )
