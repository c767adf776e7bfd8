"""The chart that a release was installed with, out of helm's own record of it.

A rollout changes values, never the chart. Helm asks for a chart all the same whenever values change, and one that lies at hand may be older or newer than
the one that is installed: then a rollout would up- or downgrade it unasked. Helm keeps in each release's record what it rendered the release from, so that
a rollback needs no chart (`Chart` in pkg/chart/v2 of Helm's source, the same in versions 3 and 4). It is written out here for the next upgrade.
"""

from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path, PurePosixPath
from typing import Any

from mlserving.errors import ConfigError


def write_chart(record: str, folder: Path) -> Path:
    """Write the chart of a release into a folder that is there, and return the folder.

    Args:
        record: what stands under `release` in the Secret of the release's number, as Kubernetes hands it out: base64 of helm's own base64 of gzipped JSON.
        folder: empty.

    Raises:
        ConfigError: the record holds no chart that can be written out.
    """
    for path, content in files_of(record).items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return folder


def files_of(record: str) -> dict[str, bytes]:
    """The chart's files by their paths; JSON is YAML, so what helm has read stands there as JSON. Raises as `write_chart` does."""
    try:
        chart = json.loads(gzip.decompress(base64.b64decode(base64.b64decode(record))))["chart"]
        found = {"Chart.yaml": _json(chart["metadata"]), "values.yaml": _json(chart.get("values") or {})}
        if chart.get("schema"):
            found["values.schema.json"] = base64.b64decode(chart["schema"])
        for file in [*(chart.get("templates") or []), *(chart.get("files") or [])]:
            found[file["name"]] = base64.b64decode(file.get("data") or "")
    except (ValueError, OSError, KeyError, TypeError) as error:
        raise ConfigError(f"Helm's record of the release is not as helm 3 and 4 write it: {error!r}. {_REMEDY}") from error
    if chart["metadata"].get("dependencies"):
        raise ConfigError(f"The chart of the release has charts of others in it, which helm does not keep. {_REMEDY}")
    if strange := [path for path in found if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts]:
        raise ConfigError(f"Helm's record of the release names files outside its chart: {', '.join(strange)}. {_REMEDY}")
    return found


_REMEDY = "Name the chart that is installed: --chart CHART, or `chart` in the file of --rollouts."


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=1).encode()
