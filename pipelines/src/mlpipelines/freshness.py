"""Whether the rows behind a source may have changed: a cheap mark that is part of `ingest`'s cache key.

For files it is their names, sizes and times; a database cannot be asked cheaply, so each run reads it anew.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from mlpipelines.project import Source


def mark_of(source: Source, project_dir: Path, run_id: str) -> str:
    """A text that changes when the source may have.

    Args:
        source: what would be read.
        project_dir: where relative paths start.
        run_id: the mark of a source that cannot be judged from outside.
    """
    if source.kind == "python":
        return "by code and options"  # both are in the key already
    if source.kind in ("sql", "bigquery") or source.incremental:
        return run_id
    files = source_files(source, project_dir)
    digest = hashlib.sha256()
    for file in files:
        facts = file.stat()
        digest.update(f"{file}\0{facts.st_size}\0{facts.st_mtime_ns}\0".encode())
    return digest.hexdigest()[:16] if files else run_id


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
