"""A plan as something to read: what each step is, owns, writes and waits for, what it costs, and what is still missing. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mlplatform.contradictions import unready
from mlplatform.environment import Environment
from mlplatform.plan.cost import Estimate, estimate
from mlplatform.plan.registry_rights import RegistryRights
from mlplatform.plan.steps import Step
from mlplatform.release import Standing, Way


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Of a step against the cluster."""

    words: str
    """How much is new, changed or to remove."""
    charts: tuple[str, str] = ("", "")
    """Name and version of its chart, there and here, where it has one."""
    restarts: tuple[str, ...] = ()
    """Whose pods start anew."""
    refused: tuple[str, ...] = ()
    """What the cluster would not take, or what would take data with it."""

    @property
    def chart(self) -> str:
        """How its chart changes; empty where it does not."""
        before, after = self.charts
        return f"{before} → {after.rpartition('-')[2]}" if before and before != after else ""


def refusals(differences: Mapping[str, Difference]) -> list[str]:
    """What the cluster would not take of steps, each with the step's name."""
    return [f"{step}: {text}" for step, difference in differences.items() for text in difference.refused]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseWay:
    """Which release the plan is of, and which one the cluster is at."""

    here: str
    there: Standing | None = None
    """None where nobody was asked."""
    way: Way | None = None

    def __str__(self) -> str:
        """In a few words."""
        if self.there is None or self.way is None:
            return f"release {self.here}"
        match self.way:
            case Way.SAME:
                return f"release {self.here}, as on the cluster"
            case Way.INSTALL:
                return f"{self.way} of release {self.here}"
            case _:
                begun = f", under way since {self.there.since}" if self.there.next else ""
                return f"{self.way} of the cluster from release {self.there.version} to {self.here}{begun}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One step."""

    step: Step
    objects: Mapping[str, int] | None
    """How many of each kind; None where they are fetched and we are offline."""
    difference: Difference | None = None
    """None where nobody was asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A plan."""

    environment: Environment
    rows: tuple[Row, ...]
    cost: Estimate | None
    missing: tuple[str, ...]
    """What must be written before it can be deployed."""
    release: ReleaseWay | None = None

    @property
    def refused(self) -> list[str]:
        """What of it the cluster would not take."""
        return refusals({row.step.name: row.difference for row in self.rows if row.difference})


def report(
    environment: Environment,
    found: Sequence[tuple[Step, Sequence[Mapping[str, Any]] | None]],
    differences: Mapping[str, Difference] | None = None,
    release: ReleaseWay | None = None,
) -> Report:
    """Of what was rendered; `differences` by the step's name."""
    rows = tuple(
        Row(
            step=step,
            objects=_counted(step, objects),
            difference=(differences or {}).get(step.name),
        )
        for step, objects in found
    )
    missing = tuple(unready(environment))
    return Report(environment=environment, rows=rows, cost=estimate(environment), missing=missing, release=release)


def _counted(step: Step, objects: Sequence[Mapping[str, Any]] | None) -> dict[str, int] | None:
    if isinstance(step.source, RegistryRights):
        return step.source.counts
    return None if objects is None else dict(sorted(Counter(str(thing["kind"]) for thing in objects).items()))


def as_json(report: Report) -> dict[str, Any]:
    """For machines."""
    return {
        "environment": report.environment.name,
        "release": _release(report.release) if report.release else None,
        "steps": [
            {
                "name": row.step.name,
                "what": row.step.what,
                "owner": row.step.owner,
                "namespace": row.step.namespace,
                "ready": row.step.ready,
                "fetched": row.step.fetched or None,
                "objects": row.objects,
                **_difference(row.difference),
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


def _release(found: ReleaseWay) -> dict[str, Any]:
    there = found.there
    return {"here": found.here, "there": there.version if there else None, "under_way_to": (there and there.next) or None, "way": found.way}


def _difference(found: Difference | None) -> dict[str, Any]:
    if found is None:
        return {"difference": None}
    before, after = found.charts
    chart = {"from": before or None, "to": after} if after else None
    return {"difference": found.words, "chart": chart, "restarts": list(found.restarts), "refused": list(found.refused)}
