"""The project's own source as an input: its rows of a window, read as `ingest` reads them, in one Parquet file.

Nothing but what the model may take, the key, the time and the columns that are carried along is read, and no label: rows that are to be
scored have none yet. Rows are sorted by key, so the same rows are the same file, whatever order a database answers in.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mlpipelines.artifacts import KEY
from mlpipelines.batch.inputs import InputFile
from mlpipelines.batch.output import Output, written_whole
from mlpipelines.errors import ConfigError
from mlpipelines.ingestion.reading import read_source, window_of
from mlpipelines.ingestion.sources import open_source
from mlpipelines.moments import moments
from mlpipelines.project import Project

if TYPE_CHECKING:
    from mlpipelines.batch.request import BatchRequest

_ROW_GROUP = 65_536


def stage_window(request: BatchRequest, keep: Sequence[str], output: Output) -> InputFile:
    """Read the window and write it where only this call looks; its name tells the window.

    Args:
        request: its project and window.
        keep: columns that are carried along.
        output: the folder.

    Raises:
        ConfigError: the project has no time column, or a column that is carried along is not the project's.
        DataRejected: the source's rows cannot be read.
        Unavailable: the source does not answer.
    """
    project = _without_label(request.project, keep)
    since, until = moments(request.since, request.until)
    window = window_of(project, since, until)
    rows = read_source(open_source(project.source, request.project_dir), project, window).rows.sort_by(KEY).drop_columns([KEY])
    named = re.sub(r"[^0-9A-Za-z+-]", "", f"{request.since or 'beginning'}_{request.until or 'now'}".replace("_", "-to-"))
    path = output.staged / f"{named}.parquet"
    with written_whole(path, rows.schema) as writer:
        writer.write_table(rows, row_group_size=_ROW_GROUP)
    return InputFile(name=path.name, path=path)


def _without_label(project: Project, keep: Sequence[str]) -> Project:
    """The project with only the columns that scoring needs."""
    known = project.column_types
    for name in keep:
        if name and name not in known:
            raise ConfigError(f"--keep {name}: project.yaml has no such column, so its source is not asked for it. Add it under `context`.")
    label = project.label.column if project.label is not None else None
    context = {name: kind for name, kind in known.items() if name in keep and name not in project.features and name != label}
    if label in keep and label is not None:
        context[label] = known[label]
    return project.model_copy(update={"label": None, "context": context})
