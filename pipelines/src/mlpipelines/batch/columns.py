"""Which columns of an input file become which inputs of the model, and what is refused before a row is read.

A file may use our names or, where project.yaml renames, the source's. Types are cast as `ingest` casts them, so a row means the same
here as in training. Pure: schemas in, columns out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from mlpipelines.errors import ConfigError, DataRejected
from mlpipelines.evaluation.served_model import ServedModel, project_for
from mlpipelines.ingestion.canonical import Repairs, canonical_array
from mlpipelines.ingestion.sources.contract import require_columns
from mlpipelines.project import ColumnType, Project

ID, TIME, MODEL, VERSION, ROW = "prediction_id", "prediction_time", "model", "model_version", "input_row"
OUTPUT = "output/"
_OURS = (ID, TIME, MODEL, VERSION, ROW)


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """One file's columns, by what they are for."""

    project: Project
    """With exactly the model's inputs as features."""
    types: Mapping[str, ColumnType]
    """Our name → type: the model's inputs, then key and time where the file has them."""
    theirs: Mapping[str, str]
    """Our name → the file's name, for each of `types` and of `kept`."""
    kept: tuple[str, ...]
    """Columns that are carried along as they are, by our names."""

    @property
    def read(self) -> list[str]:
        """The file's columns that are needed."""
        return list(dict.fromkeys(self.theirs[name] for name in (*self.types, *self.kept)))


def columns_of(schema: pa.Schema, project: Project, model: ServedModel, keep: Sequence[str], file: str) -> Columns:
    """Match a file's schema with what the model takes.

    Args:
        schema: of the file.
        project: the project, for types, key, time and renames.
        model: its signature says what it takes.
        keep: columns to carry along.
        file: the file's name in errors.

    Raises:
        DataRejected: a column is missing, occurs twice, or is of a type that cannot be cast; the text names file and column.
        ConfigError: a kept column is named like one of ours.
    """
    refuse_our_names(keep)
    if len(set(schema.names)) < len(schema.names):
        twice = next(name for name in schema.names if schema.names.count(name) > 1)
        raise DataRejected(
            f"{file} has the column {twice!r} twice, so nobody knows which is meant. Write the file again without one of them."
        )
    readable = project_for(model, project, schema.empty_table())
    extra = [name for name in (project.key, project.time) if name is not None and _their_name(name, project, schema) in schema.names]
    types = {**readable.features, **{name: project.column_types[name] for name in extra if name not in readable.features}}
    kept = tuple(dict.fromkeys([*([project.key] if project.key in extra and project.key else []), *keep]))
    theirs = {name: _their_name(name, project, schema) for name in (*types, *kept)}
    require_columns(theirs, schema.names, file)
    for name, kind in types.items():
        _require_castable(schema.field(theirs[name]).type, kind, name, file)
    return Columns(project=readable, types=types, theirs=theirs, kept=kept)


def refuse_our_names(keep: Sequence[str]) -> None:
    """Refuse to carry along a column that would stand for two things in the output.

    Raises:
        ConfigError: naming the column.
    """
    for name in keep:
        if name in _OURS or name.startswith(OUTPUT):
            raise ConfigError(f"--keep {name}: the output has a column {name!r} of its own. Rename it in the input, or leave it out.")


def _their_name(name: str, project: Project, schema: pa.Schema) -> str:
    return name if name in schema.names else project.rename.get(name, name)


def _require_castable(found: pa.DataType, kind: ColumnType, name: str, file: str) -> None:
    """Refuse a type of which no value can be cast; single values are judged row by row."""
    try:
        canonical_array(pa.array([], found), kind, Repairs())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError, ValueError, AttributeError) as error:
        raise DataRejected(
            f"{file}: column {name!r} is {found}, which cannot be read as {kind} ({error}). Correct the file, or the column's type in project.yaml.",
            report=[{"column": name, "rule": f"type {kind}", "example": str(found), "origin": file}],
        ) from error


def scalar_output(project: str, outputs: Mapping[str, pa.DataType], name: str) -> str:
    """The output column that rows are ranked by.

    Raises:
        ConfigError: there is none of that name, or it is no number.
    """
    wanted = name.removeprefix(OUTPUT)
    numbers = [each for each, kind in outputs.items() if pa.types.is_floating(kind) or pa.types.is_integer(kind)]
    if wanted not in numbers:
        raise ConfigError(f"--rank-by {name}: rows can be ranked by {', '.join(numbers) or 'no output'} of {project}, one number a row.")
    return OUTPUT + wanted
