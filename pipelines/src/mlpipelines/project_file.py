"""Reading `project.yaml`: the file, overlays and settings laid over it, and the form in which a project travels.

`project.py` says what the fields are.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pydantic
import yaml

from mlpipelines.errors import ConfigError
from mlpipelines.project import SOURCE_PLACE, Project

PROJECT_SCHEMA = Path("docs/reference/project.schema.json")
"""Where the repository keeps the JSON Schema of project.yaml."""


def load_project(folder: Path, *, overlays: Iterable[Path] = (), settings: Iterable[str] = ()) -> Project:
    """Read `folder/project.yaml`, lay `overlays` (YAML files) over it, then `settings` (`section.field=value`).

    Raises:
        ConfigError: a file is missing or is not YAML, or a field is wrong; the text names file, field and what to do.
    """
    file = folder / "project.yaml"
    values = _read_yaml(file)
    for overlay in overlays:
        values = _laid_over(values, _read_yaml(overlay))
    changes: dict[str, Any] = {}
    for setting in settings:
        changes = _merged(changes, _parsed_setting(setting), keep_nulls=True)
    return parse_project(_laid_over(values, changes), origin=str(file))


def parse_project(values: Mapping[str, Any], *, origin: str) -> Project:
    """Check `values` against the model.

    Raises:
        ConfigError: naming `origin` and the path of each wrong field.
    """
    try:
        return Project.model_validate(values)
    except pydantic.ValidationError as error:
        lines = [f"  {'.'.join(map(str, e['loc'])) or '(the file)'}: {e['msg']}" for e in error.errors()]
        raise ConfigError(
            f"{origin} is not a valid project:\n" + "\n".join(lines) + "\nFix the file; docs/reference/project.md lists every field."
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


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{file} does not exist. `millrace new NAME` writes a project to start from.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{file} must hold a mapping of fields, not {type(values).__name__}.")
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
