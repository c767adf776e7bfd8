"""What a training leaves for runs that train nothing: its weights, the transform that they belong to, and what `build` was told.

A model whose `finish` looks things up (neighbours, a threshold, a calibration) changes with the rows that it looks up, and a training is not
needed for that. `train` therefore keeps the model as it was *before* `finish`; the registry keeps it beside the version; and a run with
`training.reuse` takes it from there: `transform` applies the old graph to today's rows, `train` builds the model again, gives it its
weights and calls `finish`. Everything after that is as after a training. docs/decisions/0016-labels-enter-without-training.md says why so.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from mlpipelines.artifacts import Trained
from mlpipelines.errors import ConfigError
from mlpipelines.project import Project
from mlpipelines.project_code import FeatureSpec, ModelContext
from mlpipelines.workspace import read_json, write_json

Weights = Sequence[np.ndarray]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedFacts:
    """Where trained weights come from. Written once, by the training; who reuses it hands it on as it is, but for `version`."""

    version: int | None
    """The registered version that was trained; None before anybody has reused it, since a training does not know its number."""
    data_hash: str
    """Of the rows that were trained on."""
    code: str
    """`own_code.hash_code` of the project's Python then."""
    columns: Mapping[str, str]
    """The raw features that the transform reads, with their types."""
    context: Mapping[str, Any]
    """The `ModelContext` that `build` was given."""

    @classmethod
    def read(cls, folder: Path) -> Self:
        """From a `Trained` folder."""
        return cls(**read_json(Trained(folder).facts))

    def model_context(self) -> ModelContext:
        """`context` as `build` takes it."""
        features = {name: FeatureSpec(dtype=spec["dtype"], shape=tuple(spec["shape"])) for name, spec in self.context["features"].items()}
        lists = {name: tuple(self.context.get(name, ())) for name in ("classes", "class_rows")}
        return ModelContext(**{**self.context, **lists, "features": features})


def write_trained(folder: Path, facts: TrainedFacts, weights: Weights, transform_output: Path) -> None:
    """Fill a `Trained` folder; its facts come last, so that a folder with them is complete."""
    kept = Trained(folder)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(transform_output, kept.transform_output)
    with kept.weights.open("wb") as file:
        np.savez(file, allow_pickle=False, **{f"w{place:05d}": array for place, array in enumerate(weights)})
    write_json(kept.facts, asdict(facts))


def read_weights(folder: Path) -> list[np.ndarray]:
    """What `write_trained` was given."""
    with np.load(Trained(folder).weights, allow_pickle=False) as arrays:
        return [arrays[name] for name in sorted(arrays.files)]


def require_same(facts: TrainedFacts, project: Project, code: str) -> None:
    """Refuse to build on a training that other columns or other code made: its weights would mean something else.

    Raises:
        ConfigError: naming what changed.
    """
    what = None
    if dict(facts.columns) != dict(project.features):
        what = "`features` in project.yaml"
    elif facts.code != code:
        what = "the project's Python"
    if what is not None:
        raise ConfigError(
            f"{what} changed since version {project.training.reuse} of {project.model_name} was trained, so its weights cannot be reused. "
            "Train: `millrace run` without --reuse."
        )
