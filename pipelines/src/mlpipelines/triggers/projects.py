"""Which models there are and what their policies say: the project folders below one folder, read again when a file changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mlpipelines.errors import ConfigError
from mlpipelines.project import Project
from mlpipelines.project_file import load_project
from mlpipelines.triggers.decide import Policy, Signal
from mlpipelines.triggers.schedule import check

_HOUR, _DAY = 3600.0, 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A model and the project that trains it."""

    project: Project
    folder: Path

    @property
    def policy(self) -> Policy:
        """When it may be trained again."""
        return policy_of(self.project)


def policy_of(project: Project) -> Policy:
    """The rule's terms for what a project says."""
    said, schedule = project.retraining, project.schedule
    return Policy(
        signals=frozenset(Signal(name) for name in said.signals),
        cooldown=said.cooldown_hours * _HOUR,
        budget_runs=said.budget.runs,
        budget_gpu_seconds=None if said.budget.gpu_hours is None else said.budget.gpu_hours * _HOUR,
        budget_period=said.budget.days * _DAY,
        min_new_labels=said.min_new_labels,
        run_missed=schedule is not None and schedule.missed == "run-once",
    )


class Projects:
    """The projects below one folder, or that folder itself."""

    def __init__(self, root: Path) -> None:
        """Reads them.

        Raises:
            ConfigError: there is none, one is wrong, or two train a model of one name.
        """
        self._root = root
        self._seen: Mapping[Path, tuple[int, int]] = {}
        self._trained: Mapping[str, Trained] = {}
        self._read(self._marks())

    def named(self, model: str) -> Trained | None:
        """Who trains `model`, by its name in the registry; None where nobody does. Raises as the constructor does."""
        marks = self._marks()
        if marks != self._seen:
            self._read(marks)
        return self._trained.get(model)

    def require(self, model: str) -> Trained:
        """Who trains `model`.

        Raises:
            ConfigError: nobody does, or a project cannot be read.
        """
        trained = self.named(model)
        if trained is None:
            raise ConfigError(f"No project below {self._root} trains {model!r}. Name the folder of projects with --projects.")
        return trained

    def models(self) -> list[str]:
        """The names of all models that are trained here. Raises as the constructor does."""
        self.named("")
        return sorted(self._trained)

    def _marks(self) -> dict[Path, tuple[int, int]]:
        files = [self._root / "project.yaml", *sorted(self._root.glob("*/project.yaml"))]
        return {file: (stat.st_mtime_ns, stat.st_size) for file in files if file.is_file() and (stat := file.stat())}

    def _read(self, marks: Mapping[Path, tuple[int, int]]) -> None:
        if not marks:
            raise ConfigError(f"{self._root} holds no project. Name a folder of projects with --projects, or make one: millrace new NAME")
        found: dict[str, Trained] = {}
        for file in marks:
            trained = Trained(project=load_project(file.parent), folder=file.parent)
            if trained.project.schedule is not None:
                check(trained.project.schedule, str(file))
            name = trained.project.model_name
            if name in found:
                raise ConfigError(
                    f"{file} and {found[name].folder / 'project.yaml'} both train {name!r}. Give one another deployment.model."
                )
            found[name] = trained
        self._trained, self._seen = found, marks
