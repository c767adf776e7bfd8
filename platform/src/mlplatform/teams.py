"""Who works here, in which namespaces, with how many GPUs. A team's quotas live here and nowhere else: the plan writes GpuQueue objects from them."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, field_validator

from mlplatform.cloud import NAME, Name
from mlserving.settings_file import Strict


class Role(StrEnum):
    """What a person may do in a team's namespaces. Each role is allowed what `viewer` is; beyond that they do not contain each other."""

    VIEWER = "viewer"
    """See runs, models, rollouts, logs and the GPU line; no Secrets."""
    RUNNER = "runner"
    """Start, stop and repeat training: pipelines, Jobs, notebooks."""
    APPROVER = "approver"
    """Say yes to a version that somebody else wants to roll out, and name champions in the registry."""
    RELEASER = "releaser"
    """Roll out, promote and roll back what the team serves."""


Member = Annotated[str, Field(pattern=r"^(user|group|serviceAccount):[^\s@:]+@[^\s@:]+\.[^\s@:]+$")]
"""`user:ana@example.com`, `group:ml@example.com` or `serviceAccount:ci@PROJECT.iam.gserviceaccount.com`."""
Duration = Annotated[str, Field(pattern=r"^([1-9][0-9]*h([1-9][0-9]*m)?|[1-9][0-9]*m)$")]


class QuotaWindow(Strict):
    """A time with another quota; where two overlap, the later in the list counts."""

    cron: Annotated[str, Field(pattern=r"^[^ ]+( [^ ]+){4}$")]
    """When it begins, in five fields."""
    lasts: Duration
    time_zone: str = "UTC"
    quota: Annotated[int, Field(ge=0, le=100000)]


class Lane(Strict):
    """How many GPUs of one type a team may hold at once."""

    type: Annotated[str, Field(pattern=NAME)]
    """A GPU type that some node pool has."""
    quota: Annotated[int, Field(ge=0, le=100000)]
    windows: Annotated[tuple[QuotaWindow, ...], Field(max_length=16)] = ()

    @property
    def most(self) -> int:
        """At any hour."""
        return max([self.quota, *(window.quota for window in self.windows)])


class GpuBudget(Strict):
    """GPU hours in a period."""

    gpu_hours: Annotated[int, Field(ge=1)]
    per: Literal["day", "week", "month"] = "month"
    warn_at: tuple[Annotated[int, Field(ge=1, le=100)], ...] = (80, 100)
    """Percent; reaching one is told in an event."""
    when_spent: Literal["warn", "hold"] = "warn"


class Compute(Strict):
    """What all pods of one namespace may ask for together: a ResourceQuota."""

    cpu: Annotated[int, Field(ge=1)] = 200
    memory_gb: Annotated[int, Field(ge=1)] = 800
    pods: Annotated[int, Field(ge=1)] = 500
    """That have not ended."""


class Team(Strict):
    """A group of people with their namespaces and their share of the GPUs."""

    namespaces: Annotated[tuple[Name, ...], Field(min_length=1)]
    members: dict[Role, tuple[Member, ...]] = Field(default={})
    lanes: dict[Name, Lane] = Field(default={})
    """By the lane's name, for example `l4`."""
    order: Literal["strict", "easy"] = "strict"
    """`strict`: first in, first out. `easy`: a later job may pass if it cannot delay the first one."""
    run_limit: Duration | None = None
    """What counts as a pod's run limit when it declares none; `easy` counts on it."""
    budget: GpuBudget | None = None
    compute: Compute = Compute()
    contact: str = ""
    """Where to write to them; stands on their namespaces."""

    @field_validator("members", mode="before")
    @classmethod
    def _known_roles(cls, value: object) -> object:
        unknown = [name for name in value if name not in set(Role)] if isinstance(value, dict) else []
        if unknown:
            raise ValueError(f"no such role: {', '.join(map(str, unknown))}. There are: {', '.join(Role)}")
        return value
