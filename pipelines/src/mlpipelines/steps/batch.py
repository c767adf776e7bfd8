"""Score files with the champion: the one step of the pipeline `batch-inference`.

Kubeflow has no "not said", so an empty text, a zero or a negative share stand for it here. The work is told in `mlpipelines.batch.run`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, cast

from mlpipelines.batch.request import BatchOutcome, BatchRequest, require_accepted
from mlpipelines.batch.run import run_batch
from mlpipelines.progress import note, progress
from mlpipelines.project import Project
from mlpipelines.workspace import Workspace


def batch(
    *,
    project: Project,
    project_dir: Path,
    workspace: Workspace,
    input: str,  # noqa: A002  # the option's name
    output: str,
    since: str = "",
    until: str = "",
    version: int = 0,
    keep: Sequence[str] = (),
    rank_by: str = "",
    top: int = 0,
    per: str = "",
    once_per: str = "",
    log_share: float = -1.0,
    log_features: Sequence[str] = (),
    max_rejected: float = 0.0,
) -> BatchOutcome:
    """Score what is not in the output folder yet.

    Raises:
        DataRejected: files or too many rows could not be scored; everything else is in the output.
        ConfigError, Conflict, Unavailable: as `run_batch`.
    """
    request = BatchRequest(
        project=project,
        project_dir=project_dir,
        workspace=workspace,
        output=Path(output),
        input=input,
        since=since,
        until=until,
        version=version or None,
        keep=tuple(keep),
        rank_by=rank_by,
        top=top or None,
        per=cast("Literal['day', 'week', 'run'] | None", per or None),
        once_per=once_per,
        log_share=None if log_share < 0 else log_share,
        log_features=tuple(log_features),
        max_rejected=max_rejected,
    )
    outcome = run_batch(request, progress)
    note(
        files=outcome.files,
        rows=outcome.rows,
        rejected=outcome.rejected,
        version=outcome.version,
        cases=outcome.cases,
        summary=f"{outcome.scored:,} rows of {outcome.files} files by {outcome.model} version {outcome.version}",
    )
    require_accepted(outcome, max_rejected)
    return outcome
