"""The reviewed schema: proposed from data, shown, compared, accepted.

The first run of a project proposes one; a person reads it, accepts it into the project folder and edits it like any other
source file. From then on `steps.validate` holds every data set against it, and proposes changes where it is broken.
A proposal asks for what the data promises: text gets a closed domain only where a new value would be a surprise.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from mlpipelines.errors import ConfigError
from mlpipelines.project import Project
from mlpipelines.validation import tfdv_core
from mlpipelines.workspace import ProjectState
from mlserving.statistics.columns import Column, Texts
from mlserving.workspace import write_whole

DOMAIN_VALUES = 100
"""Text with more values than this gets no domain, unless it is the label."""
DOMAIN_MASS = 0.99
"""At least this share of a feature's values must lie in its domain; of the label's, all."""
_ROWS_FOR_A_VALUE = 20
_NEW_VALUES = 0.001
_SHOWN_VALUES = 6
_TYPES = {schema_pb2.BYTES: "text", schema_pb2.INT: "integer", schema_pb2.FLOAT: "number"}


def propose_schema(
    statistics: statistics_pb2.DatasetFeatureStatisticsList, columns: Mapping[str, Column], project: Project
) -> schema_pb2.Schema:
    """What the data promises, as a schema to review.

    Args:
        statistics: of both splits together, as TensorFlow Data Validation wrote them.
        columns: the same, as `columns.read_snapshot` reads them.
        project: says which columns are bytes and which is the label.
    """
    schema = tfdv_core.infer_schema(statistics, max_domain=DOMAIN_VALUES)
    for feature in schema.feature:
        _set_presence(feature, columns[feature.name])
        _set_values(schema, feature, columns[feature.name], project)
    _drop_unused_domains(schema)
    return schema


def relax_schema(reviewed: schema_pb2.Schema, proposal: schema_pb2.Schema, broken: Iterable[str]) -> schema_pb2.Schema:
    """`reviewed`, with the columns named in `broken` as `proposal` has them. Domains grow and lose nothing.

    A column that is not in `proposal` (the data lacks it) is left out, one that is not in `reviewed` is added.
    """
    schema = schema_pb2.Schema()
    schema.CopyFrom(reviewed)
    for name in broken:
        old, new = feature_of(schema, name), feature_of(proposal, name)
        values = {*(domain_of(reviewed, name) or ()), *(domain_of(proposal, name) or ())}
        if old is not None:
            schema.feature.remove(old)
        if new is None:
            continue
        added = schema.feature.add()
        added.CopyFrom(new)
        if added.domain:
            _set_domain(schema, added, values)
    _drop_unused_domains(schema)
    return schema


def _drop_unused_domains(schema: schema_pb2.Schema) -> None:
    used = {feature.domain for feature in schema.feature}
    kept = sorted((domain for domain in schema.string_domain if domain.name in used), key=lambda domain: domain.name)
    del schema.string_domain[:]
    schema.string_domain.extend(kept)


def _set_presence(feature: Any, column: Column) -> None:
    feature.presence.min_count = 1
    if feature.type == schema_pb2.INT or column.missing == 0:
        feature.presence.min_fraction = 1.0
        return
    share = 1 - column.missing_share
    slack = 0.01 + 5 * math.sqrt(share * (1 - share) / column.rows)
    feature.presence.min_fraction = max(math.floor((share - slack) * 100) / 100, 0.0)


def _set_values(schema: Any, feature: Any, column: Column, project: Project) -> None:
    kind = project.column_types.get(feature.name, "string")
    label = project.label if project.label is not None and project.label.column == feature.name else None
    for guess in ("int_domain", "float_domain", "bool_domain"):
        feature.ClearField(guess)  # TFDV takes text of digits for numbers
    if kind == "[string]" or (kind.startswith("[") and feature.value_count.min != feature.value_count.max):
        feature.ClearField("value_count")
    if label is not None and label.kind != "number" and column.texts is not None and column.texts.complete:
        _set_domain(schema, feature, column.texts.counts)
    elif label is not None and label.kind == "flag" and column.numbers is not None:
        _set_flag(feature, column.numbers.minimum, column.numbers.maximum)
    elif kind == "bytes" or column.texts is None or not _is_closed(column.texts):
        feature.ClearField("domain")
    else:
        _set_domain(schema, feature, column.texts.counts)
        feature.distribution_constraints.min_domain_mass = DOMAIN_MASS


def _is_closed(texts: Texts) -> bool:
    """Whether a new value would be a surprise: the chance that the next row brings one is about the share of rows
    whose value occurs once (Good and Turing, 1953).
    """
    once = sum(1 for count in texts.counts.values() if count == 1)
    few = texts.complete and len(texts.counts) <= min(DOMAIN_VALUES, texts.total / _ROWS_FOR_A_VALUE)
    return few and once <= _NEW_VALUES * texts.total and "__BYTES_VALUE__" not in texts.counts


def _set_domain(schema: Any, feature: Any, values: Iterable[str]) -> None:
    feature.domain = feature.name
    for domain in [domain for domain in schema.string_domain if domain.name == feature.name]:
        schema.string_domain.remove(domain)
    schema.string_domain.add(name=feature.name, value=sorted(values))


def _set_flag(feature: Any, minimum: float, maximum: float) -> None:
    if minimum < 0 or maximum > 1:
        return
    if feature.type == schema_pb2.INT:
        feature.int_domain.min, feature.int_domain.max = 0, 1
    else:
        feature.float_domain.min, feature.float_domain.max = 0.0, 1.0


def feature_of(schema: schema_pb2.Schema, column: str) -> Any | None:
    """The schema's entry for a column, or None."""
    return next((feature for feature in schema.feature if feature.name == column), None)


def domain_of(schema: schema_pb2.Schema, column: str) -> tuple[str, ...] | None:
    """The values that a text column may have; None where any may be."""
    feature = feature_of(schema, column)
    if feature is None:
        return None
    if feature.HasField("string_domain"):
        return tuple(feature.string_domain.value)
    return next((tuple(domain.value) for domain in schema.string_domain if feature.domain and domain.name == feature.domain), None)


def describe_schema(schema: schema_pb2.Schema) -> list[dict[str, object]]:
    """One row for each column, for a table: column, type, present, values, domain."""
    return [
        {
            "column": feature.name,
            "type": _TYPES.get(feature.type, "?"),
            "present": _presence(feature),
            "values": _value_count(feature),
            "domain": _domain(schema, feature),
        }
        for feature in schema.feature
    ]


def _presence(feature: Any) -> str:
    share = feature.presence.min_fraction
    if share >= 1:
        return "always"
    return f"in {share:.0%} of rows or more" if share > 0 else "sometimes"


def _value_count(feature: Any) -> str:
    count = feature.value_count
    if not feature.HasField("value_count"):
        return "list"
    return f"{count.min}" if count.min == count.max else f"{count.min} to {count.max or 'any'}"


def _domain(schema: schema_pb2.Schema, feature: Any) -> str:
    for bounds in ("int_domain", "float_domain"):
        if feature.HasField(bounds):
            domain = getattr(feature, bounds)
            return f"{domain.min:g} to {domain.max:g}"
    values = domain_of(schema, feature.name)
    if values is None:
        return "any"
    listed = ", ".join(values[:_SHOWN_VALUES]) + (", …" if len(values) > _SHOWN_VALUES else "")
    mass = feature.distribution_constraints.min_domain_mass if feature.HasField("distribution_constraints") else 1.0
    return f"{len(values)} values: {listed}" + (f" ({mass:.0%} of rows or more)" if mass < 1 else "")


def diff_schemas(old: schema_pb2.Schema, new: schema_pb2.Schema) -> list[dict[str, object]]:
    """One row for each thing that differs: column, what, reviewed, proposed. Empty where nothing does."""
    before = {str(row["column"]): row for row in describe_schema(old)}
    after = {str(row["column"]): row for row in describe_schema(new)}
    rows: list[dict[str, object]] = []
    for column in [*before, *(column for column in after if column not in before)]:
        if column not in after or column not in before:
            here, there = (_in_words(side[column]) if column in side else "–" for side in (before, after))
            rows.append({"column": column, "what": "column", "reviewed": here, "proposed": there})
            continue
        changed = [what for what in ("type", "present", "values") if before[column][what] != after[column][what]]
        rows += [{"column": column, "what": what, "reviewed": before[column][what], "proposed": after[column][what]} for what in changed]
        rows += _diff_domains(column, old, new, str(before[column]["domain"]), str(after[column]["domain"]))
    return rows


def _in_words(row: Mapping[str, object]) -> str:
    return f"{row['type']}, {row['present']}, {row['domain']}"


def _diff_domains(column: str, old: schema_pb2.Schema, new: schema_pb2.Schema, before: str, after: str) -> list[dict[str, object]]:
    left, right = domain_of(old, column), domain_of(new, column)
    if left is not None and right is not None and set(left) != set(right):
        gone = ", ".join(sorted(set(left) - set(right))) or "–"
        added = ", ".join(sorted(set(right) - set(left))) or "–"
        return [{"column": column, "what": "values of the domain", "reviewed": gone, "proposed": added}]
    return [{"column": column, "what": "domain", "reviewed": before, "proposed": after}] if before != after else []


def load_schema(path: Path) -> schema_pb2.Schema:
    """A `schema.pbtxt`.

    Raises:
        ConfigError: it is missing, or is not one; the text names line and column.
    """
    try:
        return text_format.Parse(path.read_text(encoding="utf-8"), schema_pb2.Schema())
    except FileNotFoundError as error:
        raise ConfigError(f"{path} does not exist. `millrace run PROJECT_DIR` proposes a schema.") from error
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not a schema: {error}. Correct it there, or see `millrace schema diff PROJECT_DIR`.") from error


def render_schema(schema: schema_pb2.Schema, *, title: str = "") -> str:
    """The text of a `schema.pbtxt`."""
    text: str = text_format.MessageToString(schema)
    return "".join(f"# {line}\n" for line in title.splitlines()) + text


def accept_schema(project: Project, project_dir: Path, state: ProjectState) -> Path:
    """Make the proposed schema the reviewed one, whole or not at all; returns the file in the project folder.

    Raises:
        ConfigError: nothing is proposed, or the proposal is damaged.
    """
    if not state.proposed_schema.is_file():
        raise ConfigError(
            f"Nothing is proposed for {project.name}: no schema is missing or broken. See `millrace schema show {project_dir}`."
        )
    target = project_dir / project.schema_file
    write_whole(target, reviewed_text(load_schema(state.proposed_schema), project))
    state.proposed_schema.unlink()
    return target


def reviewed_text(schema: schema_pb2.Schema, project: Project) -> str:
    """What is written into the project folder."""
    title = f"What the data of `{project.name}` must look like. Proposed by `millrace run`, reviewed by people: edit it freely."
    return render_schema(schema, title=title)
