"""Reading `project.yaml`: the file, overlays and settings laid over it, and the form in which a project travels.

`project.py` says what the fields are. `read_yaml` and `parsed` read, and complain about, the other files of a project folder too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Any, TypeVar

import pydantic
import yaml

from mlpipelines.errors import ConfigError
from mlpipelines.project import SOURCE_PLACE, Project

T = TypeVar("T", bound=pydantic.BaseModel)
PROJECT_SCHEMA = Path("docs/reference/project.schema.json")
"""Where the repository keeps the JSON Schema of project.yaml."""


def load_project(folder: Path, *, overlays: Iterable[Path] = (), settings: Iterable[str] = ()) -> Project:
    """Read `folder/project.yaml`, lay `overlays` (YAML files) over it, then `settings` (`section.field=value`).

    Raises:
        ConfigError: a file is missing or is not YAML, or a field is wrong; the text names file, field and what to do.
    """
    file = folder / "project.yaml"
    values = read_yaml(file)
    for overlay in overlays:
        values = _laid_over(values, read_yaml(overlay))
    changes: dict[str, Any] = {}
    for setting in settings:
        changes = _merged(changes, _parsed_setting(setting), keep_nulls=True)
    return parse_project(_laid_over(values, changes), origin=str(file))


def parse_project(values: Mapping[str, Any], *, origin: str) -> Project:
    """Check `values` against the model.

    Raises:
        ConfigError: naming `origin` and the path of each wrong field.
    """
    return parsed(Project, values, origin=origin, called="project", page="docs/reference/project.md")


def parsed(model: type[T], values: Mapping[str, Any], *, origin: str, called: str, page: str) -> T:
    """Check `values` against a model.

    Args:
        model: what they must fit.
        values: as they were written.
        origin: the file, for the error.
        called: what the file holds, likewise.
        page: the page that lists its fields, likewise.

    Raises:
        ConfigError: naming `origin` and the path of each wrong field.
    """
    try:
        return model.model_validate(values)
    except pydantic.ValidationError as error:
        lines = [f"  {'.'.join(map(str, e['loc'])) or '(the file)'}: {e['msg']}" for e in error.errors()]
        raise ConfigError(
            f"{origin} is not a valid {called}:\n" + "\n".join(lines) + f"\nFix the file; {page} lists every field."
        ) from error


def to_json(project: Project) -> str:
    """The project as one line of JSON, the form in which it travels to a step."""
    return json.dumps(project.model_dump(mode="json", exclude_defaults=True), sort_keys=True, separators=(",", ":"))


def from_json(text: str) -> Project:
    """The inverse of `to_json`."""
    return parse_project(json.loads(text), origin="the pipeline's parameter 'project'")


def project_schema() -> str:
    """The JSON Schema of project.yaml, for editors."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Millrace project", **Project.model_json_schema()}
    return json.dumps(schema, indent=1, sort_keys=True) + "\n"


def read_yaml(file: Path, *, absent: str = "`millrace new NAME` writes a project to start from.") -> dict[str, Any]:
    """The mapping in a YAML file; `absent` is what to do where there is none.

    Raises:
        ConfigError: it is missing, cannot be read, or holds no mapping.
    """
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{file} does not exist. {absent}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not YAML: {error} Correct it and run again.") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{file} must hold a mapping of fields, not {type(values).__name__}. Correct it and run again.")
    return values


def _laid_over(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over` merged onto `base`; another kind of source takes nothing of what only the old kind understands."""
    kind = (over.get("source") or {}).get("kind")
    source = base.get("source")
    if kind is not None and isinstance(source, dict) and kind != source.get("kind"):
        kept = {name: value for name, value in source.items() if name not in SOURCE_PLACE}
        base = {**base, "source": kept}
    return _merged(base, over)


def _merged(base: dict[str, Any], over: dict[str, Any], *, keep_nulls: bool = False) -> dict[str, Any]:
    """`over` laid on `base`, mapping by mapping; a null in `over` takes the field back to its default."""
    out = dict(base)
    for name, value in over.items():
        if value is None and not keep_nulls:
            out.pop(name, None)
        elif isinstance(value, dict):
            below = out.get(name)
            out[name] = _merged(below if isinstance(below, dict) else {}, value, keep_nulls=keep_nulls)
        else:
            out[name] = value
    return out


def _parsed_setting(setting: str) -> dict[str, Any]:
    path, sign, text = setting.partition("=")
    if not sign or not path:
        raise ConfigError(f"--set {setting!r}: write it as section.field=value, for example --set source.path=rows.parquet")
    value: Any = yaml.safe_load(text) if text else None
    if isinstance(value, (date, datetime)):
        value = value.isoformat()
    for name in reversed(path.split(".")):
        value = {name: value}
    result: dict[str, Any] = value
    return result
