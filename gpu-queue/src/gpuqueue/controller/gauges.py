"""Sets the metrics of the present from the picture; those that count are set where things happen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from gpuqueue.cluster.board import Board
from gpuqueue.cluster.view import View
from gpuqueue.history import Coverage
from gpuqueue.metrics import Metrics

Values = dict[tuple[str, ...], float]


def set_gauges(metrics: Metrics, board: Board, view: View) -> None:
    """All gauges about queues."""
    lanes = [(name, lane) for name, queue in board.queues.items() for lane in queue.lanes]
    metrics.replace(metrics.quota_gpus, {(name, lane.name): lane.now for name, lane in lanes})
    granted: Values = {(name, lane.name): 0.0 for name, lane in lanes}
    foreign, lent, borrowed = (dict.fromkeys(granted, 0.0) for _ in range(3))
    for name, queue in board.queues.items():
        for grant in queue.ledger:
            key = (name, grant.lane)
            granted[key] = granted.get(key, 0.0) + grant.gpus
            foreign[key] = foreign.get(key, 0.0) + grant.gpus * grant.foreign
            if grant.owner:
                lent[key] = lent.get(key, 0.0) + grant.gpus
                borrowed[grant.owner, grant.lane] = borrowed.get((grant.owner, grant.lane), 0.0) + grant.gpus
    for gauge, values in (
        (metrics.granted_gpus, granted),
        (metrics.foreign_gpus, foreign),
        (metrics.lent_gpus, lent),
        (metrics.borrowed_gpus, borrowed),
    ):
        metrics.replace(gauge, values)
    _lines(metrics, board, granted)
    _money(metrics, board)
    unopened = Counter(name for name, _ in board.unopened(view.pods))
    metrics.replace(metrics.unopened_grants, {(name,): unopened[name] for name, queue in board.queues.items() if queue.ledger})
    metrics.overlapping_namespaces.set(len(view.twice))
    metrics.orphan_pods.set(len(view.orphans()))


def set_truth(metrics: Metrics, truth: Mapping[str, Coverage]) -> None:
    """How true expected starts turned out, by queue."""
    metrics.replace(metrics.eta_p90_coverage_ratio, {(queue,): each.within_p90 for queue, each in truth.items()})
    metrics.replace(metrics.eta_error_seconds, {(queue,): each.median_error for queue, each in truth.items()})
    metrics.replace(metrics.eta_judged_starts, {(queue,): each.told for queue, each in truth.items()})


def _lines(metrics: Metrics, board: Board, lanes: Mapping[tuple[str, ...], float]) -> None:
    requests: Counter[tuple[str, ...]] = Counter()
    gpus: Values = dict.fromkeys(lanes, 0.0)
    heads: Values = {}
    for line in board.lines.values():
        key = (line.queue, line.wait.lane or "")
        requests[*key, line.wait.reason.value] += 1
        if line.wait.place:
            gpus[key] = gpus.get(key, 0.0) + line.request.gpus
            if line.wait.place == 1:
                heads[key] = max(0.0, board.now - line.request.since)
    metrics.replace(metrics.waiting_requests, dict(requests))
    metrics.replace(metrics.waiting_gpus, gpus)
    metrics.replace(metrics.head_wait_seconds, heads)


def _money(metrics: Metrics, board: Board) -> None:
    spent: Values = {}
    ratios: Values = {}
    ends: Values = {}
    for name, policy in board.policies.items():
        spent[name,] = policy.spent(board.now)
        if (budget := policy.budget(board.now)) is not None:
            ratios[name,] = budget.spent / budget.gpu_seconds
            ends[name,] = policy.period(board.now).end
    metrics.replace(metrics.spent_gpu_seconds, spent)
    metrics.replace(metrics.budget_spent_ratio, ratios)
    metrics.replace(metrics.budget_end_timestamp_seconds, ends)
