"""The contract's rows and features as Feast reads them, for whoever runs that feature store already.

Feast joins and serves values that somebody has computed. These are computed by the one statement (`mlpipelines.features.statement`), read and
cast as for a training, so what a model learned from and what Feast hands out are the same. What is written is a feature repository: a Parquet
file for each day, a Python file that declares them, and a `feature_store.yaml` where there is none. Feast itself is no dependency: it reads
these files in an environment of its own (docs/decisions/0019).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa

from mlpipelines.artifacts import KEY
from mlpipelines.batch.output import written_whole
from mlpipelines.errors import ConfigError
from mlpipelines.features.contract import MOMENT, Feature, FeatureViews, load_views
from mlpipelines.ingestion.reading import read_source, window_of
from mlpipelines.ingestion.sources import open_source
from mlpipelines.project import ColumnType, Project
from mlserving.workspace import write_whole

CREATED = "exported_at"
"""The column with the time at which a day was written."""
_SCALARS = {"string": "String", "integer": "Int64", "float": "Float32", "timestamp": "Int64", "bytes": "Bytes"}
"""Our types as Feast's; a timestamp is the whole seconds since 1970 that a model sees."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What was written."""

    definitions: Path
    """The Python file that `feast apply` reads."""
    days: int
    rows: int


def export(project: Project, project_dir: Path, output: Path, since: datetime, until: datetime | None) -> Exported:
    """Write the rows of each moment in [since, until) that has come, and what Feast needs to know of them; a day that is there is written again.

    Rows of another contract lie in another folder: what a feature meant before it was changed is not mixed with what it means now.

    Raises:
        ConfigError: the project has no contract, or a feature has a name that is taken.
        DataRejected: a value is not of the type that project.yaml says.
        Unavailable: the warehouse does not answer.
    """
    file = project_dir / "project.yaml"
    if project.source.kind != "feature_views" or project.time is None:
        raise ConfigError(
            f"{file} needs source.kind: feature_views and `time`: without a contract there is nothing to export (docs/features.md)."
        )
    views = load_views(project_dir / (project.source.views or ""))
    if taken := {CREATED, MOMENT, views.entity}.intersection(project.features):
        raise ConfigError(
            f"{file}: features.{min(taken)}: exported rows have a column of that name already. Rename it, under `rename` too."
        )
    project = project.model_copy(update={"label": None, "key": None, "context": {views.entity: "string"}})
    meaning = views.model_dump_json() + json.dumps([project.features, project.rename], sort_keys=True)
    digest, now = hashlib.sha256(meaning.encode()).hexdigest()[:12], datetime.now(UTC)
    name = project.name.replace("-", "_")
    folder, definitions, store = Path("data") / f"{name}-{digest}", output / f"{name}.py", output / "feature_store.yaml"
    moments = list(views.moments(since, min(until or now, now)))
    rows = sum(_write_day(project, project_dir, output / folder, moment, now) for moment in moments)
    if not store.exists():
        write_whole(store, _STORE.format(name=name))
    write_whole(definitions, _definitions(project, views, name=name, folder=folder, digest=digest))
    return Exported(definitions=definitions, days=len(moments), rows=rows)


def _write_day(project: Project, project_dir: Path, folder: Path, moment: datetime, now: datetime) -> int:
    window = window_of(project, moment, moment + timedelta(seconds=1))
    rows = read_source(open_source(project.source, project_dir), project, window).rows.drop_columns([KEY, str(project.time)])
    for name, time in ((MOMENT, moment), (CREATED, now)):
        rows = rows.append_column(name, pa.array([time] * rows.num_rows, pa.timestamp("us", "UTC")))
    with written_whole(folder / f"{moment:%Y-%m-%d}.parquet", rows.schema) as writer:
        writer.write_table(rows)
    return int(rows.num_rows)


def _definitions(project: Project, views: FeatureViews, *, name: str, folder: Path, digest: str) -> str:
    fields = "".join(
        f"        Field(name={each!r}, dtype={_feast_type(kind)}, description={_told(views.features.get(project.rename.get(each, each)))!r}),\n"
        for each, kind in project.features.items()
    )
    said = {"entity": views.entity, "owner": project.team, "description": project.description, "moment": MOMENT, "created": CREATED}
    return _DEFINITIONS.format(name=name, project=project.name, folder=folder.as_posix(), digest=digest, fields=fields, **said)


def _feast_type(kind: ColumnType) -> str:
    scalar = _SCALARS[kind.strip("[]")]
    return f"Array({scalar})" if kind.startswith("[") else scalar


def _told(feature: Feature | None) -> str:
    """The feature as its line in the contract says it; nothing of a column that is no feature there."""
    return ", ".join(f"{name}: {value}" for name, value in feature.model_dump(exclude_defaults=True).items()) if feature else ""


_STORE = """\
# A store on this machine. For your team's, set registry, online_store and offline_store: `millrace features export` leaves this file as it is.
project: {name}
provider: local
registry: data/registry.db
online_store: {{type: sqlite, path: data/online_store.db}}
offline_store: {{type: file}}
entity_key_serialization_version: 3
"""
_DEFINITIONS = '''\
"""Features of {project}, written by `millrace features export`. Change its feature contract or project.yaml, not this file."""

from datetime import timedelta

from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.types import Array, Bytes, Float32, Int64, String  # noqa: F401 - whatever types a contract has

entity = Entity(name={entity!r}, join_keys=[{entity!r}], value_type=ValueType.STRING)

rows = FileSource(name="{name}_rows", path={folder!r}, timestamp_field={moment!r}, created_timestamp_column={created!r})

view = FeatureView(
    name={name!r},
    description={description!r},
    owner={owner!r},
    tags={{"project": {project!r}, "contract": {digest!r}, "owner": {owner!r}}},
    entities=[entity],
    source=rows,
    ttl=timedelta(days=1) - timedelta(seconds=1),  # a row holds until the next day's moment: who has none then, has none
    schema=[
{fields}    ],
)
'''
