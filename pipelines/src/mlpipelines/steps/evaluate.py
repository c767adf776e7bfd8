"""Judge the challenger on the sealed test set, through its serving signature, and write down why.

The step gathers and records; who answered what is `contestants.py`, the decision is `judge.py`. Whatever the outcome, the
run is entered in MLflow with the verdict, so that a rejected run can be compared and read later.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mlpipelines.artifacts import KEY, Data, Evaluation, Model, TestSet
from mlpipelines.errors import Conflict
from mlpipelines.evaluation.answers import Outputs
from mlpipelines.evaluation.contestants import Asked, ask_both, judged_by
from mlpipelines.evaluation.curves import curve_data
from mlpipelines.evaluation.judge import judge
from mlpipelines.evaluation.metrics import require_metrics
from mlpipelines.evaluation.verdict import Verdict, to_json
from mlpipelines.evaluation.verdict_facts import gather_facts, read_if_there
from mlpipelines.evaluation.verdict_page import verdict_page
from mlpipelines.progress import note, progress
from mlpipelines.project import Project
from mlpipelines.publishing import registry
from mlpipelines.publishing.mlflow_runs import RunEntry
from mlpipelines.workspace import Workspace, write_json
from mlserving.workspace import write_whole

_ASKING = 0.6  # its share of the step's time; the bootstrap takes the rest


def evaluate(
    *, project: Project, workspace: Workspace, test: Path, data: Path, model: Path, evaluation: Path, run_id: str, reason: str = ""
) -> Verdict:
    """Compare the challenger in `model` with the champion, or with the project's baseline, and write the `Evaluation` artifact.

    Args:
        project: its task, label, evaluation and deployment sections count.
        workspace: registry, model store and the seal.
        test: the `TestSet` artifact.
        data: the `Data` artifact: training rows for the baseline, hashes for lineage.
        model: the `Model` artifact.
        evaluation: the folder to write.
        run_id: the pipeline run; the MLflow run gets its name.
        reason: why the run was started; the verdict's page says it.

    Raises:
        ConfigError: the evaluation section asks for a metric that this task or model does not have.
        Conflict: the test set is not the sealed one.
        DataRejected: no test row has a label.
        ModelRejected: the challenger answers with something that is not a number.
        Unavailable: the registry does not answer.
    """
    require_metrics(project)
    project = _held_to(project)
    seal = require_sealed(TestSet(test), workspace.project(project.name).sealed)
    project, rows = judged_by(project, TestSet(test).rows)
    training = read_if_there(Model(model).training)
    asked = ask_both(
        project,
        workspace,
        rows,
        data=data,
        model=model,
        training_fingerprint=str(training.get("fingerprint", "")),
        say=lambda text, share: progress(text, _ASKING * share),
    )
    progress(f"resampling {len(rows):,} rows {project.evaluation.resamples:,} times", _ASKING)
    facts = gather_facts(
        run_id=run_id,
        reason=reason,
        seal=seal,
        data=read_if_there(Data(data).manifest),
        training=training,
        asked=asked,
        rows=len(rows),
    )
    verdict = judge(project.evaluation, asked.contest, facts=facts)
    assert project.label is not None
    _write(Evaluation(evaluation), verdict, asked, rows, project.label.column)
    progress("entering the run in the registry", 0.95)
    written = Evaluation(evaluation)
    files = dict.fromkeys((written.report, written.verdict, written.curves), "evaluation") | _of_training(Model(model))
    registry.record_run(workspace, _entry(project, run_id, verdict, training, asked.fingerprint), files)
    note(outcome=verdict.outcome, verdict=verdict.title, verdict_file=str(written.verdict), summary=verdict.title)
    return verdict


def _of_training(model: Model) -> dict[Path, str]:
    """What the training told of its cost, where it did: its report, and the logs with the profiler's trace, as TensorBoard reads them."""
    return {path: folder for path, folder in ((model.training, "training"), (model.logs, "training/logs")) if path.exists()}


def _held_to(project: Project) -> Project:
    """The project with the rule that this run is judged by: labels that enter without a training may not make the model worse."""
    if project.training.reuse is None:
        return project
    rule = {"rule": "not_worse", "margin": project.evaluation.reuse_margin}
    return project.model_copy(update={"evaluation": project.evaluation.model_copy(update=rule)})


def require_sealed(test: TestSet, sealed: Path) -> Mapping[str, Any]:
    """The test set's manifest, if it is the set that was sealed in the folder `sealed`: the same hash, and the same rows.

    The columns may differ: a project may have gained or lost some since, and ingest then takes the same rows' values anew.

    Raises:
        Conflict: it is not, or nothing is sealed.
    """
    again = "A model is judged on the sealed rows only: run `millrace run --no-cache` to read them again."
    own, seal = read_if_there(test.manifest), read_if_there(sealed / "manifest.json")
    if not seal:
        raise Conflict(
            f"{sealed} does not exist: no test set was sealed in this workspace. Run `millrace run` from ingest in the same workspace."
        )
    if own.get("content_hash") != seal.get("content_hash"):
        raise Conflict(
            f"The test set in {test.root} has the content hash {str(own.get('content_hash'))[:12]}, "
            f"but {str(seal.get('content_hash'))[:12]} was sealed ({sealed}). {again}"
        )
    keys = sealed / "keys.parquet"
    if keys.is_file():
        ours, theirs = (set(pq.read_table(file, columns=[KEY])[KEY].to_pylist()) for file in (test.rows, keys))
        if ours != theirs:
            raise Conflict(f"{test.rows} has {len(ours):,} rows that are not the {len(theirs):,} sealed ones ({keys}). {again}")
    return own


def _write(to: Evaluation, verdict: Verdict, asked: Asked, rows: pa.Table, label: str) -> None:
    curves = curve_data(asked.contest.truth, asked.contest.challenger)
    to.root.mkdir(parents=True, exist_ok=True)
    pq.write_table(predictions(rows, label, asked.outputs), to.predictions)
    write_json(to.curves, curves)
    write_whole(to.report, verdict_page(verdict, curves))
    write_whole(to.verdict, to_json(verdict))


def predictions(rows: pa.Table, label: str, outputs: Outputs) -> pa.Table:
    """`KEY`, the label as `true`, and each output as `predicted/<output>`."""
    columns = {KEY: rows[KEY], "true": rows[label]} if KEY in rows.column_names else {"true": rows[label]}
    return pa.table(columns | {f"predicted/{name}": _column(values) for name, values in outputs.items()})


def _column(values: np.ndarray[Any, Any]) -> pa.Array:
    if values.ndim > 1:
        flat = np.ascontiguousarray(values).reshape(len(values), -1)
        return pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), flat.shape[1])
    if values.dtype == object:
        return pa.array([value.decode(errors="replace") if isinstance(value, bytes) else value for value in values], pa.string())
    return pa.array(values)


def _entry(project: Project, run_id: str, verdict: Verdict, training: Mapping[str, Any], own_fingerprint: str) -> RunEntry:
    return RunEntry(
        project=project.name,
        run_id=run_id,
        params=parameters_of(project),
        metrics={f"test {name}": value for name, value in verdict.metrics.items()} | training_metrics(training),
        tags={
            "project": project.name,
            "team": project.team,
            "outcome": verdict.outcome,
            "verdict": verdict.title,
            "opponent": verdict.opponent.name,
            registry.FINGERPRINT: own_fingerprint,
            **{name: verdict.facts[name] for name in ("data hash", "test hash") if name in verdict.facts},
        },
    )


def parameters_of(project: Project) -> dict[str, Any]:
    """What the run was asked for, by the names of project.yaml."""
    training = project.training.model_dump(mode="json", exclude={"parameters"})
    asked = {"evaluation.metric": project.evaluation.metric, "evaluation.rule": project.evaluation.rule}
    asked |= {f"training.{name}": value for name, value in training.items()}
    return asked | {f"training.parameters.{name}": value for name, value in project.training.parameters.items()}


def training_metrics(training: Mapping[str, Any]) -> dict[str, float]:
    """Every number in the training report and in the history of its best epoch, as `train <name>`."""
    history, best = training.get("history") or [], training.get("best_epoch")
    told = dict(history[best - 1]) if isinstance(best, int) and 0 < best <= len(history) else {}
    return {
        f"train {name.replace('_', ' ')}": float(value)
        for name, value in {**told, **training}.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    }
