"""The Kubeflow components: each a few lines around one step.

These are plain functions; `mlpipelines.pipeline` turns them into components with the image of the day. KFP carries their
*source text* into the pod, so each imports what it needs inside itself, and the annotations are real objects (this module
has no `from __future__ import annotations`, which KFP could not read).

Two rules of kfp.local 2.17 shape them: an artifact's metadata must be text, because numbers come back from its cache as
floats and change the next cache key; and a value that a condition reads must be the component's only return value.
"""

from typing import Any

from kfp import dsl

from mlpipelines.kfp_artifacts import DataSchema, DataStatistics


def labels(project: str, project_dir: str, workspace: str) -> str:
    """Mark which labels of the model's predictions are known, by a text that changes with them: `ingest` then reads rows anew."""
    from mlpipelines.inside import step

    with step("labels", project=project, project_dir=project_dir, workspace=workspace) as at:
        from mlpipelines.freshness import mark_of_labels

        return mark_of_labels(at.project, at.workspace.predictions)


def ingest(
    project: str,
    project_dir: str,
    workspace: str,
    code: str,
    project_code: str,
    freshness: str,
    labels: str,
    since: str,
    until: str,
    data: dsl.Output[dsl.Dataset],
    test: dsl.Output[dsl.Dataset],
) -> None:
    """Read the source for a window, split the rows, and seal the test set on the first run."""
    from pathlib import Path

    from mlpipelines.inside import step

    with step("ingest", project=project, project_dir=project_dir, workspace=workspace) as at:
        from mlpipelines.moments import moments
        from mlpipelines.steps.ingest import ingest as run_step

        start, end = moments(since, until)
        manifest = run_step(
            project=at.project,
            project_dir=at.project_dir,
            state=at.state,
            data=Path(data.path),
            test=Path(test.path),
            since=start,
            until=end,
            predictions=at.workspace.predictions,
        )
        data.metadata["rows"] = " · ".join(f"{count:,} {split}" for split, count in manifest.rows.items())
        data.metadata["content_hash"] = manifest.content_hash


def statistics(
    project: str,
    project_dir: str,
    workspace: str,
    code: str,
    data: dsl.Input[dsl.Dataset],
    statistics: dsl.Output[DataStatistics],
    page: dsl.Output[dsl.HTML],
) -> None:
    """Describe every column of every split."""
    from pathlib import Path

    from mlpipelines.inside import step

    with step("statistics", project=project, project_dir=project_dir, workspace=workspace) as at:
        from mlpipelines.steps.statistics import compute_statistics

        compute_statistics(project=at.project, data=Path(data.path), statistics=Path(statistics.path), page=Path(page.path))


def validate(
    project: str,
    project_dir: str,
    workspace: str,
    code: str,
    reviewed_schema: str,
    accept_schema: bool,
    data: dsl.Input[dsl.Dataset],
    statistics: dsl.Input[DataStatistics],
    schema: dsl.Output[DataSchema],
    page: dsl.Output[dsl.HTML],
) -> None:
    """Hold the data against the reviewed schema and against the last accepted data."""
    from pathlib import Path

    from mlpipelines.inside import step

    with step("validate", project=project, project_dir=project_dir, workspace=workspace) as at:
        from mlpipelines.steps.validate import validate as run_step

        run_step(
            project=at.project,
            project_dir=at.project_dir,
            state=at.state,
            data=Path(data.path),
            statistics=Path(statistics.path),
            schema=Path(schema.path),
            page=Path(page.path),
            accept_schema=accept_schema,
        )


def transform(
    project: str,
    project_dir: str,
    workspace: str,
    code: str,
    project_code: str,
    data: dsl.Input[dsl.Dataset],
    transformed: dsl.Output[dsl.Dataset],
) -> None:
    """Run the project's preprocessing with TensorFlow Transform on Beam."""
    from pathlib import Path

    from mlpipelines.inside import step

    with step("transform", project=project, project_dir=project_dir, workspace=workspace) as at:
        from mlpipelines.steps.transform import transform as run_step

        run_step(
            project=at.project,
            project_dir=at.project_dir,
            state=at.state,
            data=Path(data.path),
            transformed=Path(transformed.path),
            trained=at.trained(),
        )


def train(
    project: str,
    project_dir: str,
    workspace: str,
    code: str,
    project_code: str,
    data: dsl.Input[dsl.Dataset],
    transformed: dsl.Input[dsl.Dataset],
    model: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Fit the model, record what it cost, and export it with the transform inside."""
    from pathlib import Path

    from mlpipelines.inside import step

    with step("train", project=project, project_dir=project_dir, workspace=workspace) as at:
        from mlpipelines.steps.train import train as run_step

        report = run_step(
            project=at.project,
            project_dir=at.project_dir,
            state=at.state,
            data=Path(data.path),
            transformed=Path(transformed.path),
            model=Path(model.path),
            trained=at.trained(),
        )
        for name, value in report.headline().items():
            metrics.log_metric(name, value)
    Path(metrics.path).touch()


def evaluate(
    project: str,
    project_dir: str,
    workspace: str,
    data: dsl.Input[dsl.Dataset],
    test: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    evaluation: dsl.Output[dsl.Artifact],
    verdict: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
    curves: dsl.Output[dsl.ClassificationMetrics],
    reason: str = "",
) -> bool:
    """Judge the challenger against the champion on the sealed test set; true if it is blessed."""
    import shutil
    from pathlib import Path

    from mlpipelines.inside import step

    with step("evaluate", project=project, project_dir=project_dir, workspace=workspace) as at:
        from mlpipelines.kfp_artifacts import log_curves
        from mlpipelines.steps.evaluate import evaluate as run_step

        outcome = run_step(
            project=at.project,
            workspace=at.workspace,
            test=Path(test.path),
            data=Path(data.path),
            model=Path(model.path),
            evaluation=Path(evaluation.path),
            run_id=at.run_id,
            reason=reason,
        )
        shutil.copy(Path(evaluation.path) / "verdict.html", verdict.path)
        log_curves(Path(evaluation.path), metrics, curves)
        return bool(outcome.blessed)


def register(
    project: str,
    project_dir: str,
    workspace: str,
    lineage: dict[str, Any],
    data: dsl.Input[dsl.Dataset],
    schema: dsl.Input[DataSchema],
    model: dsl.Input[dsl.Model],
    evaluation: dsl.Input[dsl.Artifact],
) -> int:
    """Enter the blessed model in the registry, with everything that lineage needs; returns its version."""
    from pathlib import Path

    from mlpipelines.inside import step

    with step("register", project=project, project_dir=project_dir, workspace=workspace) as at:
        from mlpipelines.steps.register import register as run_step

        return run_step(
            project=at.project,
            workspace=at.workspace,
            data=Path(data.path),
            schema=Path(schema.path),
            model=Path(model.path),
            evaluation=Path(evaluation.path),
            run_id=at.run_id,
            lineage=lineage,
        )


def publish(
    project: str,
    project_dir: str,
    workspace: str,
    version: int,
    data: dsl.Input[dsl.Dataset],
    test: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    statistics: dsl.Input[DataStatistics],
    evaluation: dsl.Input[dsl.Artifact],
) -> None:
    """Check that the exported model answers as the trained one did, then put it where servers look."""
    from pathlib import Path

    from mlpipelines.inside import step

    with step("publish", project=project, project_dir=project_dir, workspace=workspace) as at:
        from mlpipelines.steps.publish import publish as run_step

        run_step(
            project=at.project,
            workspace=at.workspace,
            data=Path(data.path),
            test=Path(test.path),
            model=Path(model.path),
            statistics=Path(statistics.path),
            evaluation=Path(evaluation.path),
            version=version,
        )


def report(project: str, project_dir: str, workspace: str, reason: str, status: dsl.PipelineTaskFinalStatus) -> None:
    """Say how the run ended, whatever happened."""
    from mlpipelines.inside import step

    with step("report", project=project, project_dir=project_dir, workspace=workspace) as at:
        from mlpipelines.steps.report import report as run_step

        run_step(
            project=at.project,
            workspace=at.workspace,
            run_id=at.run_id,
            reason=reason,
            succeeded=status.state == "SUCCEEDED",
            message=status.error_message or "",
        )


def batch(
    project: str,
    project_dir: str,
    workspace: str,
    input: str,
    output: str,
    since: str,
    until: str,
    version: int,
    keep: list[str],
    rank_by: str,
    top: int,
    per: str,
    once_per: str,
    log_share: float,
    log_features: list[str],
    max_rejected: float,
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Score files with the champion, each exactly once."""
    from pathlib import Path

    from mlpipelines.inside import step

    Path(metrics.path).touch()
    with step("batch", project=project, project_dir=project_dir, workspace=workspace) as at:
        from mlpipelines.steps.batch import batch as run_step

        outcome = run_step(
            project=at.project,
            project_dir=at.project_dir,
            workspace=at.workspace,
            input=input,
            output=output,
            since=since,
            until=until,
            version=version,
            keep=keep,
            rank_by=rank_by,
            top=top,
            per=per,
            once_per=once_per,
            log_share=log_share,
            log_features=log_features,
            max_rejected=max_rejected,
        )
        for name, value in {"rows": outcome.rows, "rejected": outcome.rejected, "cases": outcome.cases or 0}.items():
            metrics.log_metric(name, value)
