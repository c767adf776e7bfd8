"""Whether the rows behind a source may have changed: a cheap mark that is part of `ingest`'s cache key.

For files it is their names, sizes and times; a database cannot be asked cheaply, so each run reads it anew. Labels of predictions, which may become
rows too, have a mark of their own, which the step `labels` makes where the run is: a label is no new data, and what it starts is said by other signals.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from mlpipelines.project import Project, Source


def mark_of(source: Source, project_dir: Path, run_id: str) -> str:
    """A text that changes when the source may have; part of `ingest`'s cache key.

    Args:
        source: what would be read.
        project_dir: where relative paths start.
        run_id: the mark of a source that cannot be judged from outside, or of which more is read than it holds.
    """
    if source.kind == "python":
        return "by code and options"  # both are in the key already
    return run_id if source.incremental else mark_of_files(source, project_dir) or run_id


def mark_of_files(source: Source, project_dir: Path) -> str:
    """A text that changes when the source's files do; empty where it is none of files, or they are not on this machine."""
    return _mark(source_files(source, project_dir.absolute()) if source.kind in ("parquet", "csv") else [])


def source_files(source: Source, project_dir: Path) -> list[Path]:
    """The files that `source.path` means: itself, a folder's Parquet or CSV files, or a glob's."""
    if source.path is None:
        return []
    path = project_dir / Path(source.path).expanduser()
    if path.is_dir():
        return sorted(p for p in path.rglob(f"*.{source.kind}") if p.is_file())
    if path.is_file():
        return [path]
    anchor = Path(path.anchor)
    return sorted(p for p in anchor.glob(str(path.relative_to(anchor))) if p.is_file())


def learns_from_predictions(project: Project) -> bool:
    """Whether labelled predictions can be rows of this project: it says so, and trains on a label that one text can tell."""
    label = project.label
    return bool(project.source.learn_from) and label is not None and label.use == "training" and label.kind != "classes"


def mark_of_labels(project: Project, predictions: Path) -> str:
    """A text that changes when other labels are known of the predictions of the project's model; empty where none would be read."""
    if not learns_from_predictions(project):
        return ""
    from mlserving.predictions.label_journal import folder_of, journals

    merged = sorted((predictions / "labels" / f"model={project.model_name}").glob("*/[!.]*.parquet"))
    return _mark([*merged, *journals(folder_of(predictions))])


def _mark(files: Sequence[Path]) -> str:
    """Of their names, sizes and times; empty where there are none."""
    digest = hashlib.sha256()
    for file in files:
        try:
            facts = file.stat()
        except FileNotFoundError:  # moved away or merged this moment; the next look will tell
            continue
        digest.update(f"{file}\0{facts.st_size}\0{facts.st_mtime_ns}\0".encode())
    return digest.hexdigest()[:16] if files else ""
