"""What the trigger asks of whatever runs pipelines: this machine (`triggers.local_runs`) or Kubeflow Pipelines (`triggers.kubeflow_runs`)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from mlpipelines.triggers.ledger import WantedRun


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a run ended."""

    outcome: str
    """blessed, rejected, unchanged, failed, interrupted, killed; on Kubeflow succeeded, failed, canceled."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What its steps noted, where that can be read from here."""
    trouble: str = ""
    """Why it failed."""
    gpu_seconds: float | None = 0.0
    """GPUs times seconds that its steps held them; None where that cannot be seen from here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """The last training of a model: when it began, and marks of what it was made from, empty where they are not known."""

    at: float
    """Seconds since 1970."""
    data: str = ""
    """As `freshness.mark_of_files` said then."""
    work: str = ""
    """As `own_code.mark_of_work` said then."""

    @classmethod
    def of_run(cls, at: float, arguments: Mapping[str, Any]) -> Training | None:
        """The training of a run, by the arguments that its pipeline was given; None where it reused an earlier one (`training.reuse`)."""
        lineage = arguments.get("lineage")
        said = lineage if isinstance(lineage, Mapping) else {}
        if "reused_training" in said:
            return None
        return cls(at=at, data=str(said.get("files", "")), work=str(said.get("work", "")))


class Runs(Protocol):
    """Where runs go."""

    @property
    def code(self) -> str:
        """Which Millrace runs the steps there."""

    def start(self, run: WantedRun) -> str:
        """See to it that there is a run of this name, and only one; where to watch it.

        Asked again with the same name, whatever became of the first time, it finds the run that there is.

        Raises:
            Unavailable: not now; the text says why.
            ConfigError: it can never be started as things are: a file is wrong.
        """

    def ended(self, name: str, model: str) -> Ended | None:
        """How the run ended; None while it goes on.

        Raises:
            Unavailable: nobody can tell at the moment.
        """

    def open_run(self, model: str, ours: Collection[str]) -> str:
        """The name of a run of this model that goes on and is none of `ours`; empty where there is none. Raises as `ended` does."""

    def last_trained(self, model: str) -> Training | None:
        """The last run that trained this model. Raises as `ended` does."""
