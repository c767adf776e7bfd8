"""`make generate`: each chart's values.schema.json, from the one place where its values are modelled.

values.yaml holds the defaults and says why one would change them; a test holds that it has these fields and no others. A value that was
renamed keeps a line in the model's `MOVED`: the schema lets the old spelling pass, and the chart refuses it with the new one.
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

import gpu_queue_values
import model_serving_values
import platform_values
import retraining_values

ROOT = Path(__file__).resolve().parent.parent
CHARTS = ROOT / "helm"
REFERENCE = ROOT / "docs" / "reference" / "model-serving-values.md"
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schemas() -> dict[str, dict[str, Any]]:
    """By chart, what Helm holds values against."""
    found = {
        "gpu-queue": gpu_queue_values.schema(),
        "model-serving": with_moved(model_serving_values.schema(), model_serving_values.MOVED),
        "retraining": retraining_values.schema(),
        **platform_values.schemas(),
    }
    return {chart: {"$schema": DIALECT, **schema} for chart, schema in found.items()}


def with_moved(schema: dict[str, Any], moved: Iterable[str]) -> dict[str, Any]:
    """The schema, which lets old spellings pass: it can only say "not allowed", and the chart's template says what to write."""
    found = copy.deepcopy(schema)
    for path in moved:
        *parents, name = path.split(".")
        place = found
        for parent in parents:
            place = _resolved(place["properties"][parent], found)
        place["properties"].setdefault(name, {"deprecated": True})
    return found


def reference(schema: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    """The values as a page: path, default, and what it is for."""
    rows = [f"| `{path}` | {default} | {about} |" for path, default, about in _rows(schema, schema, defaults, "")]
    moved = [f"| `{old}` | {new} |" for old, new in model_serving_values.MOVED.items()]
    return "\n".join(
        [
            "# Values of `helm/model-serving`",
            "",
            "Written by `make generate` from `tools/model_serving_values.py` and the chart's `values.yaml`, which says more about each.",
            "",
            "| Value | Default | |",
            "|---|---|---|",
            *rows,
            "",
            "Spellings that are refused, with what to write:",
            "",
            "| Value | |",
            "|---|---|",
            *moved,
            "",
        ]
    )


def _rows(schema: Mapping[str, Any], whole: Mapping[str, Any], defaults: Any, path: str) -> list[tuple[str, str, str]]:
    found: list[tuple[str, str, str]] = []
    for name, item in schema.get("properties", {}).items():
        if item.get("deprecated"):
            continue
        resolved = {**_resolved(item, whole), **{key: value for key, value in item.items() if key != "$ref"}}
        default = defaults.get(name) if isinstance(defaults, dict) else None
        if "properties" in resolved and isinstance(default, dict):
            found += _rows(resolved, whole, default, f"{path}{name}.")
        else:
            shown = "" if default in ("", None) else f"`{json.dumps(default, ensure_ascii=False)}`"
            found.append((f"{path}{name}", shown, " ".join(resolved.get("description", "").split()).replace("|", "\\|")))
    return found


def _resolved(item: dict[str, Any], whole: Mapping[str, Any]) -> dict[str, Any]:
    """What a reference points to: the object itself, so that a change of it is seen."""
    if "$ref" in item:
        found: dict[str, Any] = whole["$defs"][item["$ref"].rpartition("/")[2]]
        return found
    return item


def main() -> int:
    """Write the schemas, what moved, and the reference page."""
    for chart, schema in schemas().items():
        (CHARTS / chart / "values.schema.json").write_text(json.dumps(schema, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    serving = CHARTS / "model-serving"
    moved = yaml.safe_dump(dict(model_serving_values.MOVED), allow_unicode=True, width=200)
    (serving / "moved.yaml").write_text(
        f"# Values that are spelled otherwise, and how. Written by tools/chart_values.py; templates/moved.yaml refuses them.\n{moved}",
        "utf-8",
    )
    defaults = yaml.safe_load((serving / "values.yaml").read_text(encoding="utf-8"))
    REFERENCE.write_text(reference(schemas()["model-serving"], defaults), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
