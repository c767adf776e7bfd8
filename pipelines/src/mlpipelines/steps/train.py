"""Fit the project's model on the transformed rows, record what it cost, and export it with the transform inside.

The wiring of a training; each part has a module of its own: `training_job` (what is trained on what), `input_pipeline`
(rows), `strategies` (devices), `model_code` (the project's `model.py`), `training_loop` (fitting), `checkpoints` (going on
after a SIGKILL), `training_profile` (what it costs), `export` and `reference_rows` (what leaves). With several workers every
process runs all of this alike, and only the chief writes. Before this comes `steps/transform.py`, after it `steps/evaluate.py`.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from mlpipelines.artifacts import Data, Model, Transformed
from mlpipelines.errors import ConfigError, DataRejected
from mlpipelines.gpu_time import metered
from mlpipelines.progress import note, progress
from mlpipelines.project import Project
from mlpipelines.training.checkpoints import TrainingState
from mlpipelines.training.explanations import row_to_compare_with
from mlpipelines.training.export import answers_in_memory, export_model
from mlpipelines.training.input_pipeline import first_batch
from mlpipelines.training.job import VERSIONS, TrainingJob, prepare_job
from mlpipelines.training.loop import Course, Narrator, first_patience, fit_model, restore, snapshot
from mlpipelines.training.model_code import ModelCode
from mlpipelines.training.profile import StepClock, Trace, peak_gpu_memory_mb, peak_memory_mb, profiled_steps
from mlpipelines.training.reference_rows import write_reference
from mlpipelines.training.report import TrainingReport
from mlpipelines.training.reuse import keep_trained, reused_facts, reused_model
from mlpipelines.training.strategies import place, prepare_for_fit
from mlpipelines.training.tasks import check_output
from mlpipelines.training.transformed_rows import Columns, non_finite_features
from mlpipelines.workspace import ProjectState

_REJECTED = re.compile(r"DataRejected: (.+)")
_EXAMPLE_ROWS = 64
_GIVEN_UP = 7 * 24 * 3600
"""Seconds after which nobody comes back to a training that was killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fitted:
    """A model after fitting."""

    model: keras.Model
    state: TrainingState
    clock: StepClock
    resumed_from_step: int = 0
    seconds: float = 0.0

    @classmethod
    def of(cls, model: keras.Model) -> _Fitted:
        """A model that came with its weights."""
        return cls(model=model, state=TrainingState(), clock=StepClock(None))


def train(
    *, project: Project, project_dir: Path, state: ProjectState, data: Path, transformed: Path, model: Path, trained: Path | None = None
) -> TrainingReport:
    """Train on `transformed` (`artifacts.Transformed`) and write `model` (`artifacts.Model`). `data` is read for reference rows.

    With `trained` (`artifacts.Trained`) nothing is fitted: the model gets its weights from there, and only `finish` sees the rows.

    Raises:
        ConfigError: `model.py` or the training section is wrong.
        DataRejected: a transformed file cannot be used.
        ModelRejected: the loss became NaN or infinite.
        Unavailable: other workers did not answer.
    """
    started = time.monotonic()
    progress("preparing the model", 0.02)
    placement = place(project.training, os.environ)
    keras.utils.set_random_seed(project.training.seed)
    with metered(state.gpu_time, placement.gpus):
        job = prepare_job(
            project=project,
            project_dir=project_dir,
            state=state,
            placement=placement,
            data=Data(data),
            source=Transformed(transformed),
            output=Model(model),
            trained=trained,
        )
        return _trained(job, started)


def _trained(job: TrainingJob, started: float) -> TrainingReport:
    """Fit, export and report. `started` is monotonic."""
    if job.placement.is_chief:
        _clear(job.output)
        job.checkpoints.forget_others(before=time.time() - _GIVEN_UP)
    fitted = _fit(job) if job.trained is None else _Fitted.of(reused_model(job))
    if job.placement.is_chief:
        _export(job, fitted)
    report = _report(job, fitted, seconds=time.monotonic() - started)
    if job.placement.is_chief:
        report.write(job.output.training)
        job.checkpoints.delete()
        note(**{name: round(value, 4) for name, value in report.headline().items()}, strategy=report.strategy, precision=report.precision)
    return report


def _clear(output: Model) -> None:
    """Remove what a killed training left behind."""
    for folder in (output.saved_model, output.logs, output.trained):
        shutil.rmtree(folder, ignore_errors=True)
    for file in (output.training, output.reference):
        file.unlink(missing_ok=True)
    output.root.mkdir(parents=True, exist_ok=True)


def _fit(job: TrainingJob) -> _Fitted:
    """Build the model and fit it, from its last checkpoint if there is one."""
    training = job.project.training
    model = _built(job)
    state = _resumed(job, model)
    wait = tf.Variable(0.0, dtype=tf.float64, trainable=False) if job.placement.strategy is None else None
    course = Course(
        state,
        checkpoints=job.checkpoints,
        every=training.checkpoint_steps,
        steps=job.steps,
        writes=job.placement.is_chief,
        diagnosis=lambda: [{"feature": name, "values": count} for name, count in non_finite_features(job.training).items()],
    )
    clock = StepClock(wait)
    started = time.monotonic()
    with _fitting(job.code):
        fit_model(
            model,
            course=course,
            callbacks=_callbacks(job, model, clock, course),
            batches=lambda epoch, step: job.training_batches(epoch, step, wait),
            validation=job.validation_batches(),
            epochs=training.epochs,
            steps=job.steps,
        )
    return _Fitted(model=model, state=course.state, clock=clock, resumed_from_step=state.steps, seconds=time.monotonic() - started)


def _built(job: TrainingJob) -> keras.Model:
    """The compiled model with all its variables, its output held against the task."""
    example = first_batch(job.training, rows=min(job.context.batch_size, _EXAMPLE_ROWS))
    with job.placement.scope():
        model = job.code.build(job.context)
        with job.code.calling("the model that build() returns"):
            output = model(example[0], training=False)
    check_output(job.project.task, output, classes=len(job.context.classes), origin=str(job.code.file))
    changed = job.code.batches(tf.data.Dataset.from_tensors(example).repeat(), job.context) if job.placement.strategy else None
    with job.code.calling("compiling in build()"):
        prepare_for_fit(model, job.placement, next(iter(changed)) if changed is not None else example)
    return model


def _resumed(job: TrainingJob, model: keras.Model) -> TrainingState:
    """Where the training stands: at its last checkpoint, whose values the model gets, or at the beginning."""
    found = job.checkpoints.latest()
    if found is not None and restore([*model.variables, *model.optimizer.variables], found[1]):
        progress(f"going on from step {found[0].steps}", 0.1)
        return found[0]
    stopping = job.project.training.early_stopping
    return TrainingState(patience=first_patience(stopping.monitor, stopping.patience, stopping.min_delta) if stopping else None)


def _callbacks(job: TrainingJob, model: keras.Model, clock: StepClock, course: Course) -> list[keras.callbacks.Callback]:
    training, logs = job.project.training, job.output.logs if job.placement.is_chief else None
    narrator = Narrator(course, epochs=training.epochs, steps=job.steps, rows_per_step=job.rows_per_step, logs=logs)
    if logs is None:
        return [clock, course, narrator]
    first, last = profiled_steps(training.profile_steps, steps=job.steps - course.state.step, at_once=model.steps_per_execution)
    return [clock, Trace(logs / "train", first=first, last=last), course, narrator]


@contextlib.contextmanager
def _fitting(code: ModelCode) -> Iterator[None]:
    """Translate what TensorFlow and Keras raise while fitting.

    Raises:
        ConfigError: memory, a shape or a type does not fit.
        DataRejected: the input pipeline could not read a file.
    """
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        raise ConfigError(
            "The model does not fit into memory. Lower training.batch_size in project.yaml, then `millrace run` again."
        ) from error
    except (ValueError, TypeError, tf.errors.OpError) as error:
        rejected = _REJECTED.search(str(error))
        if rejected:
            raise DataRejected(rejected.group(1)) from error
        with code.calling("fitting the model that build() returns"):
            raise


def _export(job: TrainingJob, fitted: _Fitted) -> None:
    """Write the SavedModel and the reference rows."""
    progress("exporting the model", 0.92)
    single = fitted.model if job.trained else _single(job, fitted)
    if job.code.finishes:
        keep_trained(job, single)
    finished = job.code.finish(single, job.context, job.examples)
    classes, task = job.context.classes, job.project.task

    def answer(features: Columns) -> Columns:
        """In batches that are known to fit: rows may be images."""
        rows, size = len(next(iter(features.values()))), job.context.batch_size
        parts = [
            answer_few({name: array[start : start + size] for name, array in features.items()}) for start in range(0, max(1, rows), size)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def answer_few(features: Columns) -> Columns:
        tensors = {name: tf.constant(array, job.training.features[name].dtype) for name, array in features.items()}
        return answers_in_memory(finished, tensors, task=task, classes=classes)

    compared = row_to_compare_with(job.project, job.data.files("train")) if job.project.deployment.explanations else None
    with job.code.calling("the model that finish() returns"):
        export_model(
            finished, project=job.project, transformed=job.source, classes=classes, folder=job.output.saved_model, compared=compared
        )
    progress("writing reference rows", 0.97)
    write_reference(job.output.reference, data=job.data, transformed=job.source, split=job.validation, answer=answer)


def _single(job: TrainingJob, fitted: _Fitted) -> keras.Model:
    """The model with the best epoch's weights; built anew, in float32, where it was trained on several devices or in another precision."""
    patience, model = fitted.state.patience, fitted.model
    weights = job.checkpoints.best(patience.best_epoch) if patience and patience.best_epoch else snapshot(model.variables)
    if job.placement.strategy is not None or job.placement.precision != "float32":
        model = job.code.build(job.context)
        model(first_batch(job.training, rows=1)[0], training=False)
    if not restore(model.variables, weights):
        raise ConfigError(
            f"{job.code.file}: build() returns other shapes each time it is called. "
            "Make them depend on its context only, then `millrace run` again."
        )
    return model


def _report(job: TrainingJob, fitted: _Fitted, *, seconds: float) -> TrainingReport:
    times, gpu = fitted.clock.times(), peak_gpu_memory_mb()
    return TrainingReport(
        train_rows=job.training.rows,
        validation_rows=job.validation.rows,
        batch_size=job.rows_per_step,
        steps_per_epoch=job.steps,
        steps=fitted.state.steps,
        resumed_from_step=fitted.resumed_from_step,
        epochs_run=fitted.state.epoch,
        best_epoch=fitted.state.best_epoch,
        stopped_early=fitted.state.stopped_early,
        history=fitted.state.history,
        seconds=round(seconds, 3),
        fit_seconds=round(fitted.seconds, 3),
        examples_per_second=round(times.steps * job.rows_per_step / times.seconds, 1) if times.seconds else 0.0,
        step_ms_mean=round(times.mean_ms, 3),
        step_ms_p50=round(times.p50_ms, 3),
        step_ms_p95=round(times.p95_ms, 3),
        input_wait_share=times.wait_share,
        peak_memory_mb=round(peak_memory_mb(), 1),
        peak_gpu_memory_mb=None if gpu is None else round(gpu, 1),
        devices=job.placement.devices,
        strategy=job.placement.name,
        replicas=job.placement.replicas,
        precision=job.placement.precision,
        parameters=int(fitted.model.count_params()),
        versions={**VERSIONS, "numpy": np.__version__},
        reused=reused_facts(job),
    )
