"""Arguments that several commands share, so that they read alike everywhere."""

from __future__ import annotations

import argparse
from pathlib import Path

from mlpipelines.errors import ConfigError
from mlpipelines.project import Project
from mlpipelines.project_file import load_project
from mlpipelines.workspace import Workspace, find_workspace

EXIT_CODES = """exit codes:
  0  it worked; for a run: blessed, or nothing new since the champion
  1  a bug, or a step that broke (the log has the traceback)
  2  a file or an argument is wrong
  3  rejected: the data or the model is not good enough; read the report
  4  something outside did not answer; try again
  5  somebody else is at it
  130  interrupted; run the same command again to go on"""


def make_parser(name: str, description: str, examples: str) -> argparse.ArgumentParser:
    """A parser whose `--help` ends with examples and exit codes."""
    return argparse.ArgumentParser(
        prog=f"millrace {name}",
        description=description,
        epilog=f"examples:\n{examples.rstrip()}\n\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_project(parser: argparse.ArgumentParser) -> None:
    """`PROJECT_DIR`, `--with`, `--set`."""
    parser.add_argument("project_dir", type=Path, metavar="PROJECT_DIR", help="the folder with project.yaml")
    parser.add_argument(
        "--with",
        dest="overlays",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="a YAML file laid over project.yaml; null takes a field back to its default (repeatable)",
    )
    parser.add_argument(
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="one field, for example source.path=rows.parquet (repeatable)",
    )


def add_workspace(parser: argparse.ArgumentParser) -> None:
    """`--workspace`."""
    parser.add_argument(
        "--workspace", metavar="DIR", help="where runs, registry and models are kept (default: $MILLRACE_WORKSPACE, else .millrace here)"
    )


def add_registry(parser: argparse.ArgumentParser) -> None:
    """`--registry`."""
    parser.add_argument(
        "--registry",
        default="",
        metavar="SECRET",
        help="the Secret with the team's account in the registry, in the namespace of its runs (on our platform: registry-account)",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """`--json`."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def project_of(arguments: argparse.Namespace) -> Project:
    """The project that the arguments name. Overlays are looked for here, then in the project folder; a path given to `--set` starts here."""
    folder: Path = arguments.project_dir
    overlays = [file if file.exists() else folder / file for file in arguments.overlays]
    return load_project(folder, overlays=overlays, settings=[_from_here(setting) for setting in arguments.settings])


def _from_here(setting: str) -> str:
    """A relative `source.path` (`source.views`, `schema_file`) on the command line means the folder that the person stands in, not the project's."""
    field, sign, value = setting.partition("=")
    if field in ("source.path", "source.views", "schema_file") and value and not Path(value).is_absolute():
        return f"{field}{sign}{Path.cwd() / value}"
    return setting


def add_reuse(parser: argparse.ArgumentParser) -> None:
    """`--reuse`."""
    parser.add_argument(
        "--reuse",
        default="",
        metavar="VERSION",
        help="train nothing: build on what trained this version, a number or `champion`, with today's rows as the examples that are looked up",
    )


def reusing(project: Project, version: str, workspace: Workspace) -> Project:
    """The project with `training.reuse` as `--reuse` says it; as it is where it says nothing.

    Raises:
        ConfigError: it is neither a number nor `champion`, or there is no champion.
    """
    if not version:
        return project
    if version == "champion":
        from mlpipelines.publishing import registry

        champion = registry.champion_of(workspace, project.model_name)
        if champion is None:
            raise ConfigError(f"{project.model_name} has no champion whose training could be reused. Train one first: `millrace run`.")
        version = str(champion.version)
    if not version.isdecimal() or int(version) < 1:
        raise ConfigError(
            f"--reuse {version!r}: name a version by its number, or `champion`. `millrace models {project.model_name}` lists them."
        )
    return project.model_copy(update={"training": project.training.model_copy(update={"reuse": int(version)})})


def workspace_of(arguments: argparse.Namespace) -> Workspace:
    """The workspace that the arguments name."""
    return find_workspace(arguments.workspace)
