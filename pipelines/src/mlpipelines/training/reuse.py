"""A training that is reused: its model comes back as it was before `finish`, and what a training leaves for that is kept.

`trained.py` has the folder; this is where `steps/train.py` fills and reads it.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import keras

from mlpipelines.errors import ConfigError
from mlpipelines.progress import progress
from mlpipelines.training.input_pipeline import first_batch
from mlpipelines.training.job import TrainingJob
from mlpipelines.training.loop import restore, snapshot
from mlpipelines.training.tasks import TASKS
from mlpipelines.training.trained import TrainedFacts, read_weights, require_same, write_trained
from mlpipelines.workspace import read_json


def reused_model(job: TrainingJob) -> keras.Model:
    """The model of an earlier training, built as it was then, with its weights.

    Raises:
        ConfigError: columns or code changed since, or the task cannot do with other classes than it was trained on.
    """
    assert job.trained is not None
    progress("taking what was trained", 0.1)
    facts, version = TrainedFacts.read(job.trained), job.project.training.reuse
    require_same(facts, job.project, job.project_code)
    context = facts.model_context()
    if TASKS[job.project.task].width(1) is not None and context.classes != job.context.classes:
        raise ConfigError(
            f"The training rows have other classes than version {version} was trained on, and a model of task {job.project.task!r} answers for "
            "those that it was trained on. Train: `millrace run` without --reuse."
        )
    model = job.code.build(context)
    with job.code.calling("the model that build() returns"):
        model(first_batch(job.training, rows=1)[0], training=False)
    if not restore(model.variables, read_weights(job.trained)):
        raise ConfigError(
            f"{job.code.file}: build() makes other variables than version {version} has. Train: `millrace run` without --reuse."
        )
    return model


def keep_trained(job: TrainingJob, model: keras.Model) -> None:
    """Keep the model as it is before `finish`. A run that reuses a training hands on what it was given, with the version that trained it."""
    if job.trained is not None:
        facts = TrainedFacts.read(job.trained)
        facts = replace(facts, version=facts.version or job.project.training.reuse)
    else:
        manifest = read_json(job.data.manifest) if job.data.manifest.is_file() else {}
        facts = TrainedFacts(
            version=None,
            data_hash=str(manifest.get("content_hash", "")),
            code=job.project_code,
            columns=dict(job.project.features),
            context=asdict(job.context),
        )
    write_trained(job.output.trained, facts, snapshot(model.variables), job.source.transform_output)


def reused_facts(job: TrainingJob) -> dict[str, Any]:
    """Whose weights these are: the version that is reused, unless that one reused a training too. Empty where the model was trained here."""
    if job.trained is None:
        return {}
    facts = TrainedFacts.read(job.trained)
    return {"version": facts.version or job.project.training.reuse, "data_hash": facts.data_hash}
