"""Which code this is: Millrace's own and a project's, for cache keys, for the record, and to tell that it has changed since."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from mlpipelines.project import Deployment, Project, Step
from mlpipelines.project_file import to_json

_NO_WORK = ("description", "resources", "deployment", "monitor", "schedule", "retraining", "notifications")
"""Sections of a project that change no model, but for what the exported graph can be asked (`deployment.explanations`)."""
DECIDES_LATER = "decisions.py"
"""Decides on scores of `millrace batch`: no step of a run reads it."""


def hash_millrace() -> str:
    """Hash of our own source: a step's cached result is not reused by other code."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def hash_code(project: Project, project_dir: Path, step: Step) -> str:
    """Hash of the project's Python that can change what `step` produces.

    `ingest` runs what the source's `entry` imports, or what its `views` say, `transform` runs features.py, `train` both: so a changed model does not
    read the rows again, and a changed generator does.
    """
    left_out = {"ingest": {"features.py", "model.py"}, "transform": {"model.py"}, "train": set()}[step]
    entry = project.source.entry
    if step == "ingest" and project.source.views is not None:
        views = project_dir / project.source.views
        return hashlib.sha256(views.read_bytes()).hexdigest()[:16] if views.is_file() else ""
    if step == "ingest" and entry is None:
        return ""
    if step != "ingest" and entry is not None:
        left_out = left_out | {entry.partition(":")[0].replace(".", "/") + ".py"}
    digest = hashlib.sha256()
    for file in sorted(project_dir.rglob("*.py")):
        if file.name not in left_out | {DECIDES_LATER} and not file.name.startswith("test_"):
            digest.update(str(file.relative_to(project_dir)).encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def mark_of_work(project: Project, project_dir: Path, code: str) -> str:
    """A text that changes when the same rows might make another model: the project's Python, its sections, and Millrace.

    The reviewed schema is none of it: it lets rows through or does not, and a run may accept it by itself.

    Args:
        project: the parsed project.
        project_dir: its folder.
        code: which Millrace runs the steps: the hash of its source, or its image by digest.
    """
    neutral: dict[str, Any] = {name: Project.model_fields[name].get_default() for name in _NO_WORK}
    neutral["deployment"] = Deployment(explanations=project.deployment.explanations)
    said = [code, hash_code(project, project_dir, "ingest"), hash_code(project, project_dir, "train")]
    said.append(to_json(project.model_copy(update=neutral)))
    return hashlib.sha256("\0".join(said).encode()).hexdigest()[:16]
