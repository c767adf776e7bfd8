"""The data sets that `validate` let through: what the next one is held against.

One folder for each, named by its content hash and never changed: statistics, the data manifest and the label's classes.
`current.json` names the last. A run that is killed between the two leaves the old pointer, which is true as well.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from mlpipelines.artifacts import Data, Statistics
from mlpipelines.validation.columns import Snapshot, read_snapshot
from mlpipelines.validation.label_rules import ClassCounts
from mlpipelines.workspace import ProjectState, create_folder, read_json, write_json


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A data set that was let through."""

    content_hash: str
    snapshot: Snapshot
    classes: ClassCounts | None
    """Of the label, if it has classes."""


def last_accepted(state: ProjectState) -> Accepted | None:
    """The last one, or None on a project's first run."""
    pointer = state.accepted_statistics / "current.json"
    if not pointer.is_file():
        return None
    content_hash = str(read_json(pointer)["content_hash"])
    folder = state.accepted_statistics / content_hash
    if not folder.is_dir():
        return None
    found = read_json(folder / "classes.json")
    classes = ClassCounts(rows=found["rows"], counts=found["counts"]) if found else None
    return Accepted(content_hash=content_hash, snapshot=read_snapshot(folder), classes=classes)


def remember(state: ProjectState, *, data: Path, statistics: Path, classes: ClassCounts | None) -> None:
    """Make this data set the last accepted one.

    Args:
        state: of the project.
        data: a `Data` artifact; its manifest is kept.
        statistics: its `Statistics` artifact, which is kept.
        classes: of the label, if it has classes.
    """
    content_hash = str(read_json(Data(data).manifest)["content_hash"])
    files = Statistics(statistics)

    def write(folder: Path) -> None:
        for file in (files.whole, files.of("train"), files.of("validation"), Data(data).manifest):
            shutil.copy(file, folder / file.name)
        write_json(folder / "classes.json", {"rows": classes.rows, "counts": dict(classes.counts)} if classes else None)

    folder = state.accepted_statistics / content_hash
    if not folder.exists():
        create_folder(folder, write)
    write_json(state.accepted_statistics / "current.json", {"content_hash": content_hash})
