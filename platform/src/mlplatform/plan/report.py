"""A plan as something to read: what each step is, owns, writes and waits for, what it costs, and what is still missing. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mlplatform.contradictions import unready
from mlplatform.environment import Environment
from mlplatform.plan.cost import Estimate, estimate
from mlplatform.plan.steps import Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One step."""

    step: Step
    objects: Mapping[str, int] | None
    """How many of each kind; None where they are fetched and we are offline."""
    difference: str = ""
    """Against the cluster, in a few words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A plan."""

    environment: Environment
    rows: tuple[Row, ...]
    cost: Estimate | None
    missing: tuple[str, ...]
    """What must be written before it can be deployed."""


def report(
    environment: Environment, found: Sequence[tuple[Step, Sequence[Mapping[str, Any]] | None]], differences: Mapping[str, str] | None = None
) -> Report:
    """Of what was rendered; `differences` by the step's name."""
    rows = tuple(
        Row(
            step=step,
            objects=None if objects is None else dict(sorted(Counter(str(thing["kind"]) for thing in objects).items())),
            difference=(differences or {}).get(step.name, ""),
        )
        for step, objects in found
    )
    return Report(environment=environment, rows=rows, cost=estimate(environment), missing=tuple(unready(environment)))


def as_json(report: Report) -> dict[str, Any]:
    """For machines."""
    return {
        "environment": report.environment.name,
        "steps": [
            {
                "name": row.step.name,
                "what": row.step.what,
                "owner": row.step.owner,
                "namespace": row.step.namespace,
                "ready": row.step.ready,
                "fetched": row.step.fetched or None,
                "objects": row.objects,
                "difference": row.difference or None,
            }
            for row in report.rows
        ],
        "gpus": {
            "pools": report.environment.gpus(),
            "quotas": {team: {lane.type: lane.quota for lane in about.lanes.values()} for team, about in report.environment.teams.items()},
        },
        "cost": asdict(report.cost) | {"least": report.cost.least, "most": report.cost.most} if report.cost else None,
        "missing": list(report.missing),
    }
