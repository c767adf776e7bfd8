"""Hold the data against the reviewed schema, the last accepted data, and plain sense, before anything is learned from it.

Without a reviewed schema one is proposed, and the run stops until a person has accepted it. What breaks a rule is refused with
a table that names column, rule, share of rows and examples read back from the rows; nothing downstream runs and nothing is
lost. What passes becomes the *last accepted data*, which the next run is compared with. The rules are asked in `findings`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tensorflow_metadata.proto.v0 import schema_pb2

from mlpipelines.artifacts import Data, Statistics
from mlpipelines.errors import DataRejected
from mlpipelines.ingestion.manifest import mended, place_of
from mlpipelines.progress import note, progress
from mlpipelines.project import Project
from mlpipelines.validation.accepted import last_accepted, remember
from mlpipelines.validation.anomalies import summary
from mlpipelines.validation.columns import Snapshot, read_snapshot, read_statistics
from mlpipelines.validation.data_rules import empty_splits
from mlpipelines.validation.findings import Findings, judge, settings_that_let_pass
from mlpipelines.validation.label_rules import ClassCounts
from mlpipelines.validation.rows import count_classes, with_examples
from mlpipelines.validation.schemas import load_schema, propose_schema, relax_schema, render_schema, reviewed_text
from mlpipelines.validation.validation_page import validation_page
from mlpipelines.workspace import ProjectState, read_json
from mlserving.workspace import write_whole


def validate(
    *,
    project: Project,
    project_dir: Path,
    state: ProjectState,
    data: Path,
    statistics: Path,
    schema: Path,
    page: Path,
    accept_schema: bool = False,
    now: datetime | None = None,
) -> None:
    """Write the reviewed schema and remember the data as accepted, or refuse it.

    Args:
        project: its sections `validation` and `schema_file` are read.
        project_dir: where the reviewed schema lies.
        state: of the project: the last accepted data, and the proposal for a schema.
        data: a `Data` artifact.
        statistics: its `Statistics` artifact.
        schema: the file to write the reviewed schema to.
        page: the HTML file to write, whatever the outcome.
        accept_schema: without a reviewed schema, accept the proposal at once if no other rule is broken.
        now: for rows in the future; the clock's time where not given.

    Raises:
        DataRejected: a rule is broken, or no schema is reviewed. `report` has a row for each anomaly.
        ConfigError: the reviewed schema is not one, or the statistics are damaged.
    """
    progress("comparing the data with its schema and with the last accepted data")
    reviewed_file = project_dir / project.schema_file
    reviewed = load_schema(reviewed_file) if reviewed_file.is_file() else None
    current = read_snapshot(statistics)
    classes = _classes(project, data, current)
    proposal, found = _judged(
        project, current, statistics=statistics, reviewed=reviewed, state=state, classes=classes, now=now or datetime.now(UTC)
    )
    found = _with_examples(found, data, project)
    write_whole(page, validation_page(project, found, schema=reviewed or proposal, reviewed=reviewed is not None or accept_schema))
    warnings = len(found.anomalies) - len(found.rejecting)
    note(
        rejected=len(found.rejecting), told_only=warnings, summary=f"no rule is broken, {warnings} warnings" if not found.rejecting else ""
    )
    if found.rejecting or (reviewed is None and not accept_schema):
        _propose(reviewed, proposal, found, state)
        text = _refusal(found, project_dir, None if reviewed else state.proposed_schema, read_json(Data(data).manifest))
        raise DataRejected(text, [anomaly.as_row() for anomaly in found.anomalies])
    if reviewed is None:
        write_whole(reviewed_file, reviewed_text(proposal, project))
    write_whole(schema, reviewed_file.read_bytes())
    remember(state, data=data, statistics=statistics, classes=classes)
    state.proposed_schema.unlink(missing_ok=True)


def _judged(
    project: Project,
    current: Snapshot,
    *,
    statistics: Path,
    reviewed: schema_pb2.Schema | None,
    state: ProjectState,
    classes: ClassCounts | None,
    now: datetime,
) -> tuple[schema_pb2.Schema, Findings]:
    """The schema that the data suggests, and what the rules say. Without rows nothing is suggested, and nothing else is said."""
    if empty := empty_splits(current):
        return reviewed or schema_pb2.Schema(), Findings(beside_schema=tuple(empty))
    whole = read_statistics(Statistics(statistics).whole)
    proposal = propose_schema(whole, current.whole, project)
    schema = proposal if reviewed is None else reviewed
    return proposal, judge(project, current, statistics=whole, schema=schema, last=last_accepted(state), classes=classes, now=now)


def _classes(project: Project, data: Path, current: Snapshot) -> ClassCounts | None:
    if project.label is None or project.label.kind == "number" or project.label.column not in current.whole:
        return None
    return count_classes(data, project.label.column)


def _with_examples(found: Findings, data: Path, project: Project) -> Findings:
    types = project.column_types
    schema, beside = (
        tuple(with_examples(anomaly, data, types.get(anomaly.column)) for anomaly in group)
        for group in (found.of_schema, found.beside_schema)
    )
    return replace(found, of_schema=schema, beside_schema=beside)


def _propose(reviewed: schema_pb2.Schema | None, proposal: schema_pb2.Schema, found: Findings, state: ProjectState) -> None:
    """Leave a proposal where the schema is what a person may want to change."""
    if reviewed is None:
        write_whole(state.proposed_schema, render_schema(proposal))
    elif found.broken_columns:
        write_whole(state.proposed_schema, render_schema(relax_schema(reviewed, proposal, found.broken_columns)))


def _refusal(found: Findings, project_dir: Path, proposed: Path | None, manifest: Mapping[str, Any]) -> str:
    """The error's text: what is wrong, where the rows came from and, last, what to type next.

    Args:
        found: what the rules said.
        project_dir: for the next command.
        proposed: the proposal where no schema is reviewed.
        manifest: the data's; what `ingest` mended may be the reason why a column breaks a rule now.
    """
    if not found.rejecting:
        return (
            f"{project_dir} has no reviewed schema yet. One is proposed from this data: read {proposed}, "
            f"then accept it with `millrace schema accept {project_dir}`"
        )
    lines = [
        f"The data from {place_of(manifest['source'])} is refused:",
        summary(found.anomalies),
        *(f"  mended before: {text}" for text in mended(manifest.get("repaired", {}))),
        _next_command(found, project_dir, reviewed=proposed is None),
    ]
    return "\n".join(lines)


def _next_command(found: Findings, project_dir: Path, *, reviewed: bool) -> str:
    if found.broken_columns and reviewed:
        return f"If the data is right, see how the schema would have to change with `millrace schema diff {project_dir}`"
    settings = settings_that_let_pass(found.rejecting)
    if settings:
        options = " ".join(f"--set {setting}" for setting in settings)
        return f"If the data is right, let it pass this once with `millrace run {project_dir} {options}`"
    return f"Correct the rows at their source, then `millrace run {project_dir}`"
