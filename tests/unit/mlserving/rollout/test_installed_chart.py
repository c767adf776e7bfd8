"""A chart out of helm's record of a release, where the record is not what it should be. Real records: tests/integration/mlserving/rollout/test_helm_release.py."""

from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from mlserving.errors import ConfigError
from mlserving.rollout.installed_chart import write_chart

METADATA = {"name": "model-serving", "version": "0.2.0", "apiVersion": "v2"}


def record(**chart: Any) -> str:
    """As Kubernetes hands it out."""
    text = json.dumps({"name": "cards", "chart": {"metadata": METADATA, "templates": [], "files": [], **chart}})
    return base64.b64encode(base64.b64encode(gzip.compress(text.encode(), mtime=0))).decode()


def file(name: str) -> dict[str, str]:
    return {"name": name, "data": base64.b64encode(b"text").decode()}


def test_every_file_lies_where_helm_looks_for_it(tmp_path: Path) -> None:
    schema = base64.b64encode(b"{}").decode()
    made = write_chart(
        record(values={"ports": [1, 2.5]}, schema=schema, templates=[file("templates/a.yaml")], files=[file("rules/b.yaml")]), tmp_path
    )
    found = {path.relative_to(made).as_posix(): path.read_text() for path in made.rglob("*") if path.is_file()}
    assert (found.pop("templates/a.yaml"), found.pop("rules/b.yaml"), found.pop("values.schema.json")) == ("text", "text", "{}")
    assert {name: json.loads(text) for name, text in found.items()} == {"Chart.yaml": METADATA, "values.yaml": {"ports": [1, 2.5]}}


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ("no base64!", "not as helm 3 and 4 write it"),
        (base64.b64encode(base64.b64encode(b"not zipped")).decode(), "not as helm 3 and 4 write it"),
        (base64.b64encode(base64.b64encode(gzip.compress(b"{}", mtime=0))).decode(), "not as helm 3 and 4 write it"),
        (record(metadata={**METADATA, "dependencies": [{"name": "redis"}]}), "charts of others in it"),
        (record(files=[file("../../etc/cron.d/x")]), r"outside its chart: \.\./\.\./etc"),
        (record(templates=[file("/etc/passwd")]), "outside its chart: /etc/passwd"),
    ],
)
def test_what_cannot_be_written_out_is_refused_with_another_way(bad: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"{says}.* --chart CHART"):
        write_chart(bad, tmp_path)
    assert list(tmp_path.iterdir()) == []
