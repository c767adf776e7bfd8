"""What would be made is told without Pulumi in this process, and with a clear word where Pulumi's libraries are not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from clouds import environment
from mlplatform.environment import FOLDER, read_environment
from mlplatform.errors import ConfigError
from mlplatform.infrastructure import Resource, listing, offline, resources

ROOT = Path(__file__).resolve().parents[3]


def test_a_cluster_that_is_there_already_has_no_cloud_to_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offline.sys, "executable", "/nowhere")
    assert resources(read_environment(ROOT / FOLDER / "laptop.yaml")) == ()


def test_without_pulumis_libraries_one_is_told_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    bare: str = sys._base_executable  # type: ignore[attr-defined]  # the Python that the environment was made of, which has no library
    monkeypatch.setattr(offline.sys, "executable", bare)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    with pytest.raises(ConfigError, match="make setup"):
        resources(environment("gke-staging"))


def test_a_bug_of_the_program_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "Pulumi.yaml").touch()
    (tmp_path / "millrace_gke").mkdir()
    (tmp_path / "millrace_gke" / "offline.py").write_text("1 / 0")
    monkeypatch.setattr(offline, "PROGRAM", tmp_path)
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        resources(environment("gke-staging"))


def test_an_image_without_the_program_says_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(offline, "PROGRAM", tmp_path)
    with pytest.raises(ConfigError, match="from a checkout of Millrace only"):
        resources(environment("gke-staging"))


def test_a_listing_says_what_it_is_what_was_decided_and_whether_it_is_protected() -> None:
    bucket = Resource(
        type="gcp:storage/bucket:Bucket", name="models", inputs={"location": "EU", "versioning": {"enabled": True}}, protected=True
    )
    bare = Resource(type="gcp:compute/network:Network", name="net", inputs={})
    assert listing([bucket, bare]) == (
        "storage.Bucket models  [protected]\n  location: EU\n  versioning: {enabled: true}\ncompute.Network net\n"
    )


def test_planning_offline_imports_no_pulumi() -> None:
    code = "import sys, mlplatform.infrastructure.__main__; print([name for name in sys.modules if name.startswith('pulumi')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
