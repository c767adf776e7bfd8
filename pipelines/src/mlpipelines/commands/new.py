"""`millrace new`."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from string import Template

from mlpipelines.commands import options, screen
from mlpipelines.errors import ConfigError, Conflict
from mlpipelines.project import NAME
from mlpipelines.project_file import PROJECT_SCHEMA, project_schema

_EXAMPLES = """  millrace new churn                        a folder `churn` here
  millrace new churn --team growth --into pipelines/projects"""


def main(argv: Sequence[str]) -> int:
    """Write a project that runs at once."""
    parser = options.make_parser(
        "new", "Write a new project: project.yaml, features.py, model.py, a generator of rows and a README. It runs as it is.", _EXAMPLES
    )
    parser.add_argument("name", metavar="NAME", help="lower case, digits and hyphens")
    parser.add_argument("--team", default="my-team", help="who owns it")
    parser.add_argument("--into", type=Path, default=Path(), metavar="DIR", help="where to put the folder (default: here)")
    arguments = parser.parse_args(argv)
    folder = write_project(arguments.name, arguments.team, arguments.into)
    screen.console().print(
        f"Wrote {folder}. Next:\n  millrace run {folder} --accept-schema\n  millrace serve {arguments.name}", soft_wrap=True
    )
    return 0


def write_project(name: str, team: str, into: Path) -> Path:
    """Fill a new folder `into/name` from the templates.

    Raises:
        ConfigError: `name` or `team` is not lower case, digits and hyphens.
        Conflict: the folder is there already.
    """
    for what, value in (("name", name), ("team", team)):
        if not re.match(NAME, value):
            raise ConfigError(f"the {what} {value!r} must be lower case letters, digits and hyphens, for example: millrace new scam-users")
    folder = into / name
    if folder.exists():
        raise Conflict(f"{folder} is there already; nothing was written. Choose another name, or edit {folder / 'project.yaml'}.")
    try:
        folder.mkdir(parents=True)
        facts = {"name": name, "team": team, "schema": _schema_beside(folder)}
        for template in resources.files("mlpipelines.scaffold").iterdir():
            if template.name.endswith(".tmpl"):
                text = Template(template.read_text(encoding="utf-8")).substitute(facts)
                (folder / template.name.removesuffix(".tmpl")).write_text(text, encoding="utf-8")
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


def _schema_beside(folder: Path) -> str:
    """A relative path to the JSON Schema that editors complete from: this repository's, or a copy written into the folder."""
    for parent in folder.absolute().parents:
        if (parent / PROJECT_SCHEMA).is_file():
            return os.path.relpath(parent / PROJECT_SCHEMA, folder.absolute())
    (folder / PROJECT_SCHEMA.name).write_text(project_schema(), encoding="utf-8")
    return PROJECT_SCHEMA.name
