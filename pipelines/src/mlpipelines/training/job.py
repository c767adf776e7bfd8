"""What is trained on what: the transformed rows, the project's model code, the devices, and the checkpoint it goes on from.

Put together once by `prepare_job` from what lies on disk; `steps/train.py` does the rest.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import pyarrow as pa
import tensorflow as tf

from mlpipelines.artifacts import KEY, Data, Model, Transformed
from mlpipelines.errors import DataRejected
from mlpipelines.evaluation.capacity import share_of_rows
from mlpipelines.own_code import DECIDES_LATER, hash_code
from mlpipelines.project import Project
from mlpipelines.project_code import FeatureSpec, ModelContext, code_hash
from mlpipelines.training.checkpoints import Checkpoints, fingerprint
from mlpipelines.training.input_pipeline import ordered_batches, training_batches
from mlpipelines.training.model_code import ModelCode, load_model_code
from mlpipelines.training.profile import waiting
from mlpipelines.training.row_windows import Shard
from mlpipelines.training.strategies import Placement, distributed
from mlpipelines.training.transformed_rows import LabelSpec, Split, class_weights, label_counts, open_split
from mlpipelines.workspace import ProjectState, read_json

VERSIONS = {"python": platform.python_version(), "tensorflow": tf.__version__, "keras": keras.__version__, "pyarrow": pa.__version__}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingJob:
    """Everything that a training follows from, and where it goes."""

    project: Project
    code: ModelCode
    placement: Placement
    training: Split
    validation: Split
    context: ModelContext
    """Its `batch_size` is that of one replica: what `model.py` sees."""
    checkpoints: Checkpoints
    data: Data
    source: Transformed
    output: Model
    project_code: str
    """`own_code.hash_code` of the project's Python."""
    trained: Path | None = None
    """`Trained`, to build on; None: a model is trained."""

    @property
    def local_replicas(self) -> int:
        """Replicas of this process."""
        return self.placement.replicas // self.placement.shard.workers

    @property
    def rows_per_step(self) -> int:
        """Over all replicas of all workers."""
        return self.context.batch_size * self.context.replicas

    @property
    def steps(self) -> int:
        """Of an epoch; the same for every worker."""
        return self.placement.shard.rows(self.training.rows) // (self.context.batch_size * self.local_replicas)

    def training_batches(self, epoch: int, step: int, wait: tf.Variable | None) -> Any:
        """Batches without end from `step` of `epoch` on, as `fit` takes them; `wait` adds up the seconds that they are waited for."""
        each = self.placement.shard.rows(self.training.rows) // self.context.batch_size
        data_epoch, data_step = divmod((epoch * self.steps + step) * self.local_replicas, each)
        weights = self._class_weights()

        def dataset(shard: Shard) -> tf.data.Dataset:
            batches = training_batches(
                self.training,
                batch_size=self.context.batch_size,
                shuffle_rows=self.project.training.shuffle_rows,
                seed=self.project.training.seed,
                shard=shard,
                epoch=data_epoch,
                step=data_step,
                weights=weights,
            )
            changed = self.code.batches(batches, self.context)
            return changed if wait is None else waiting(changed, wait)

        return distributed(self.placement, dataset)

    def validation_batches(self) -> Any:
        """One pass over the validation rows, as `fit` takes it."""
        size = self.context.batch_size
        return distributed(self.placement, lambda shard: ordered_batches(self.validation, batch_size=size, shard=shard))

    def examples(self, split: Literal["train", "validation"] = "train", *, keys: bool = False) -> tf.data.Dataset:
        """One pass over all rows of a split, for `finish`; with `keys`, the rows' keys are among the features as `artifacts.KEY`."""
        rows = self.training if split == "train" else self.validation
        if keys:
            rows = replace(rows, features={**rows.features, KEY: FeatureSpec(dtype="string")})
        return ordered_batches(rows, batch_size=self.context.batch_size)

    def _class_weights(self) -> Any:
        wanted, label = self.project.training.class_weights, self.training.label
        if wanted == "none" or label is None or label.kind not in ("class", "flag"):
            return None
        counts = np.array(self.context.class_rows) if label.kind == "class" else label_counts(self.training)
        return class_weights(counts, wanted)


def prepare_job(
    *,
    project: Project,
    project_dir: Path,
    state: ProjectState,
    placement: Placement,
    data: Data,
    source: Transformed,
    output: Model,
    trained: Path | None = None,
) -> TrainingJob:
    """Open the transformed rows and the project's code.

    Raises:
        ConfigError: `model.py` is missing or fails on import.
        DataRejected: a file cannot be read, or a split holds too few rows.
    """
    manifest, classes = read_json(source.manifest), read_json(source.classes)
    features = {name: FeatureSpec(dtype=spec["dtype"], shape=tuple(spec["shape"])) for name, spec in manifest["features"].items()}
    label = project.label if project.label and project.label.use == "training" else None
    spec = LabelSpec(kind=label.kind, classes=len(classes)) if label else None
    training, validation = (open_split(source.files(split), features, spec) for split in ("train", "validation"))
    _hold_rows(source, placement, train=training, validation=validation)
    context = ModelContext(
        features=features,
        task=project.task,
        classes=tuple(classes),
        class_rows=tuple(label_counts(training).tolist()) if classes else (),
        parameters=project.training.parameters,
        train_rows=training.rows,
        batch_size=_replica_batch(project.training.batch_size, training.rows, placement),
        replicas=placement.replicas,
        epochs=project.training.epochs,
        seed=project.training.seed,
        vocabularies=manifest.get("vocabularies", {}),
        capacity_share=_capacity_share(project, data),
    )
    return TrainingJob(
        project=project,
        code=load_model_code(project_dir),
        placement=placement,
        training=training,
        validation=validation,
        context=context,
        checkpoints=Checkpoints(state.checkpoints / _fingerprint(project, project_dir, manifest, classes, data)),
        data=data,
        source=source,
        output=output,
        project_code=hash_code(project, project_dir, "train"),
        trained=trained,
    )


def _capacity_share(project: Project, data: Data) -> float | None:
    if project.evaluation.capacity is None or not data.manifest.is_file():
        return None
    return share_of_rows(project, data.source_files("train"), read_json(data.manifest)["rows"])


def _hold_rows(source: Transformed, placement: Placement, **splits: Split) -> None:
    for name, split in splits.items():
        if placement.shard.rows(split.rows) < placement.replicas // placement.shard.workers:
            raise DataRejected(
                f"{source.root / name} holds {split.rows} rows, too few for {placement.replicas} replicas. "
                "Look at `source` and `split` in project.yaml, then `millrace run` again."
            )


def _replica_batch(batch_size: int, total: int, placement: Placement) -> int:
    """Rows in a replica's batch: its part of `batch_size`, or of all the rows where they are fewer."""
    local = placement.replicas // placement.shard.workers
    return max(1, min(batch_size // placement.replicas, placement.shard.rows(total) // local))


def _fingerprint(project: Project, project_dir: Path, manifest: Mapping[str, Any], classes: list[str], data: Data) -> str:
    """Over rows, features, code and settings; not over what differs between two runs of `transform` on the same rows."""
    modules = sorted(file.stem for file in project_dir.glob("*.py") if file.name != DECIDES_LATER)
    content = read_json(data.manifest).get("content_hash") if data.manifest.is_file() else None
    lasting = {name: manifest.get(name) for name in ("rows", "features", "vocabularies")}
    settings = project.training.model_dump(mode="json")
    return fingerprint([content, lasting, classes, code_hash(project_dir, *modules), project.task, settings, VERSIONS])
