"""The picture as plain structs with names that stay: what `/api/v1` and `--json` give, and what the page and the tables show."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from gpuqueue.cluster.board import Board, Line
from gpuqueue.cluster.gpu_queues import stamp
from gpuqueue.queue import Grant, Lane
from gpuqueue.words import gpus


class Holder(msgspec.Struct, rename="camel", omit_defaults=True):
    """Who holds GPUs."""

    namespace: str
    name: str
    gpus: int
    since: str
    seconds: int
    pods: int
    runs_out: str = ""
    """When its run limit is over."""
    foreign: bool = False
    owner: str = ""
    """The queue that borrows."""
    family: str = ""


class Waiter(msgspec.Struct, rename="camel", omit_defaults=True):
    """Who waits."""

    namespace: str
    name: str
    gpus: int
    since: str
    seconds: int
    reason: str
    message: str
    place: int = 0
    likely: str = ""
    surely: str = ""
    pods: list[str] = []


class LaneReport(msgspec.Struct, rename="camel"):
    """A lane, who holds it and who waits for it."""

    name: str
    quota: int
    granted: int
    free: int
    next_quota: int | None
    """What the calendar changes the quota to next."""
    next_change: str | None
    match: dict[str, str]
    holders: list[Holder]
    line: list[Waiter]


class BudgetReport(msgspec.Struct, rename="camel"):
    """GPU hours of the period."""

    period: str
    hours: float
    spent_hours: float
    when_spent: str
    ends: str


class QueueReport(msgspec.Struct, rename="camel"):
    """A queue."""

    name: str
    namespaces: list[str]
    order: str
    lanes: list[LaneReport]
    passed_by: list[Waiter]
    """Those that cannot start as they are."""
    spent_hours: float
    budget: BudgetReport | None
    pool: str | None
    borrowed: int
    complaints: list[str]


class PodReport(msgspec.Struct, rename="camel", omit_defaults=True):
    """Where one pod stands."""

    namespace: str
    name: str
    state: str
    """`waiting`, `granted`, `ended` or `unmanaged`."""
    message: str
    queue: str = ""
    lane: str = ""
    gpus: int = 0
    place: int = 0
    of: int = 0
    reason: str = ""
    likely: str = ""
    surely: str = ""
    ahead: list[Waiter] = []


def queue_report(board: Board, name: str) -> QueueReport:
    """What there is to say about one queue.

    Raises:
        KeyError: there is none of that name.
    """
    queue, policy = board.queues[name], board.policies[name]
    waiters = [(line.wait, _waiter(board, line, board.message(line))) for line in board.by_queue[name]]
    return QueueReport(
        name=name,
        namespaces=list(policy.spec.namespaces),
        order=policy.spec.order,
        lanes=[
            _lane(
                board,
                lane,
                dict(next((field.match for field in policy.spec.lanes if field.name == lane.name), {})),
                (grant for grant in queue.ledger if grant.lane == lane.name),
                sorted((waiter for wait, waiter in waiters if wait.place and wait.lane == lane.name), key=lambda w: w.place),
            )
            for lane in queue.lanes
        ],
        passed_by=[waiter for wait, waiter in waiters if not wait.place],
        spent_hours=round(policy.spent(board.now) / 3600, 2),
        budget=_budget(board, name),
        pool=queue.pool,
        borrowed=sum(grant.gpus for each in board.queues.values() for grant in each.ledger if grant.owner == name),
        complaints=list(policy.complaints),
    )


def pod_report(board: Board, namespace: str, name: str, uid: str) -> PodReport:
    """Where one pod stands; `unmanaged` if nobody has heard of it."""
    if (line := board.by_pod.get(uid)) is not None:
        wait = line.wait
        ahead = [board.lines[key] for key in wait.ahead if key in board.lines]
        waiter = _waiter(board, line, board.message(line))
        return PodReport(
            namespace=namespace,
            name=name,
            state="waiting",
            message=waiter.message,
            queue=line.queue,
            lane=wait.lane or "",
            gpus=line.request.gpus,
            place=wait.place,
            of=wait.of,
            reason=wait.reason.value,
            likely=waiter.likely,
            surely=waiter.surely,
            ahead=[_waiter(board, other, "") for other in ahead],
        )
    if (held := board.grants.get(uid)) is not None:
        queue, grant = held
        text = f"it holds {gpus(grant.gpus)} of lane {grant.lane} in queue {queue} since {stamp(grant.at)}"
        return PodReport(namespace=namespace, name=name, state="granted", message=text, queue=queue, lane=grant.lane, gpus=grant.gpus)
    return PodReport(namespace=namespace, name=name, state="unmanaged", message="no GPU pod of that name waits or runs in a queue")


def _lane(board: Board, lane: Lane, match: dict[str, str], grants: Iterable[Grant], line: list[Waiter]) -> LaneReport:
    held = sorted(grants, key=lambda grant: (grant.at, grant.name, grant.key))
    granted = sum(grant.gpus for grant in held)
    change = next(((moment, quota) for moment, quota in lane.quota if moment > board.now), None)
    return LaneReport(
        name=lane.name,
        quota=lane.now,
        granted=granted,
        free=max(0, lane.now - granted),
        next_quota=change[1] if change else None,
        next_change=stamp(change[0]) if change else None,
        match=match,
        holders=[_holder(board, grant) for grant in held],
        line=line,
    )


def _holder(board: Board, grant: Grant) -> Holder:
    return Holder(
        namespace=grant.namespace,
        name=grant.name,
        gpus=grant.gpus,
        since=stamp(grant.at),
        seconds=round(max(0.0, board.now - grant.at)),
        pods=len(grant.pods),
        runs_out=stamp(grant.ends) if grant.limit is not None else "",
        foreign=grant.foreign,
        owner=grant.owner,
        family=grant.family,
    )


def _waiter(board: Board, line: Line, text: str) -> Waiter:
    request, starts = line.request, board.starts.get(line.request.key)
    return Waiter(
        namespace=request.namespace,
        name=request.name,
        gpus=request.gpus,
        since=stamp(request.since),
        seconds=round(max(0.0, board.now - request.since)),
        reason=line.wait.reason.value,
        message=text,
        place=line.wait.place,
        likely=stamp(starts[0]) if starts else "",
        surely=stamp(starts[1]) if starts else "",
        pods=[pod.name for pod in request.pods],
    )


def _budget(board: Board, name: str) -> BudgetReport | None:
    policy = board.policies[name]
    field, period = policy.spec.budget, policy.period(board.now)
    if field is None:
        return None
    spent = round(policy.spent(board.now) / 3600, 2)
    return BudgetReport(
        period=period.name, hours=float(field.gpu_hours), spent_hours=spent, when_spent=field.when_spent, ends=stamp(period.end)
    )
