"""The generated part of the documentation: `make generate` writes it, `make verify` holds it.

Each page is a function from our own definitions to text: the project model's docstrings, the artifacts' docstrings, each
command's `--help`. Nothing is said twice by hand.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path

from mlpipelines import artifacts
from mlpipelines.evaluation import metrics_page
from mlpipelines.features.contract import FeatureViews
from mlpipelines.project import Project
from mlpipelines.project_file import PROJECT_SCHEMA, project_schema
from mlserving.field_tables import GENERATED, tables, write_pages


def project_page() -> str:
    """Every field of project.yaml: type, default and meaning, a table for each section."""
    parts = [
        "# project.yaml",
        "",
        GENERATED.format("`mlpipelines/project.py`"),
        "",
        "One file says what a model is. Fields without a default must be given.",
        "",
        *tables(Project),
    ]
    return "\n".join(parts).rstrip() + "\n"


def views_page() -> str:
    """Every field of feature_views.yaml."""
    parts = [
        "# feature_views.yaml",
        "",
        GENERATED.format("`mlpipelines/features/contract.py`"),
        "",
        "The feature contract of a source of kind `feature_views` ([how](../features.md), [in Feast](../features.md#in-feast)). Fields without a default must be given.",
        "",
        *tables(FeatureViews),
    ]
    return "\n".join(parts).rstrip() + "\n"


def artifacts_page() -> str:
    """What lies in the folder of each artifact."""
    parts = ["# Artifacts", "", GENERATED.format("`mlpipelines/artifacts.py`"), "", inspect.getdoc(artifacts) or "", ""]
    for name, kind in inspect.getmembers(artifacts, inspect.isclass):
        if kind.__module__ != artifacts.__name__:
            continue
        parts += [f"## {name}", "", inspect.getdoc(kind) or "", "", "| Name | What lies there |", "|---|---|"]
        root = Path("(root)")
        for member, value in vars(kind).items():
            if isinstance(value, property):
                where = value.fget(kind(root)).relative_to(root)  # type: ignore[misc, call-arg]  # a property's getter and an artifact class, both plain
                parts.append(f"| `{where}` | {' '.join((inspect.getdoc(value) or '').split())} |")
            elif inspect.isfunction(value) and not member.startswith("_"):
                parts.append(f"| `{member}(…)` | {' '.join((inspect.getdoc(value) or '').split())} |")
        parts.append("")
    return "\n".join(parts).rstrip() + "\n"


PAGES: dict[str, Callable[[], str]] = {
    PROJECT_SCHEMA.name: project_schema,
    "project.md": project_page,
    "feature-views.md": views_page,
    "artifacts.md": artifacts_page,
    "metrics.md": metrics_page.metrics_page,
}


if __name__ == "__main__":
    sys.exit(write_pages(PAGES, Path(sys.argv[1])))
