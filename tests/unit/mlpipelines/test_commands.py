"""The commands: they answer at once, explain themselves, and print for people and for machines."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mlpipelines.commands import models, new, runs, screen
from mlpipelines.errors import ConfigError, Conflict
from mlpipelines.project_file import load_project
from mlpipelines.reference import PAGES
from mlpipelines.runs import StepRecord

COMMANDS = (
    "new",
    "run",
    "schema",
    "features",
    "compile",
    "submit",
    "runs",
    "compare",
    "models",
    "batch",
    "trigger",
    "schedules",
    "why",
    "freeze",
    "thaw",
)
ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_examples_and_exit_codes(name: str) -> None:
    shown = subprocess.run([Path(sys.executable).parent / "millrace", name, "--help"], capture_output=True, text=True, check=True)
    assert f"millrace {name}" in shown.stdout
    assert "examples:" in shown.stdout
    assert "130  interrupted" in shown.stdout


def test_asking_for_help_loads_nothing_heavy() -> None:
    heavy = ("tensorflow", "kfp", "mlflow", "apache_beam", "pandas")
    code = f"import sys; from mlpipelines.commands import run, runs, new, schema, features, compile, submit, compare, models, batch, trigger, schedules, why, freeze; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_a_trigger_for_a_cluster_loads_nothing_that_its_image_does_not_hold(tmp_path: Path) -> None:
    heavy = ("tensorflow", "mlflow", "apache_beam", "pandas", "keras", "grpc", "tensorflow_data_validation")
    new.write_project("churn", "growth", tmp_path / "projects")
    image = "registry.example/steps@sha256:" + "a" * 64
    place = (
        f"Namespace(workspace={str(tmp_path)!r}, kubeflow='http://127.0.0.1:1', image={image!r}, gpu_image='', namespace=None, notify=None,"
        " registry='')"
    )
    code = f"""
import sys
from argparse import Namespace
from pathlib import Path
from mlpipelines.commands import trigger
machine = trigger._machine({place}, Path({str(tmp_path / "projects")!r}), None)
machine.look(), machine.start(), machine.tell()
assert "does not answer" in machine.known.troubles["churn"]
print([m for m in {heavy} if m in sys.modules])
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.splitlines()[-1] == "[]"


def test_new_writes_a_valid_project_and_never_over_another(tmp_path: Path) -> None:
    folder = new.write_project("scam-users", "trust", tmp_path)
    assert load_project(folder).team == "trust"
    assert (folder / "project.yaml").read_text().startswith("# yaml-language-server: $schema=project.schema.json\n")
    assert (folder / "project.schema.json").exists()
    with pytest.raises(Conflict, match="nothing was written"):
        new.write_project("scam-users", "trust", tmp_path)


def test_inside_the_repository_a_new_project_points_at_the_one_json_schema() -> None:
    folder = ROOT / "pipelines" / "projects" / "a-name-for-this-test"
    try:
        new.write_project(folder.name, "trust", folder.parent)
        assert "$schema=../../../docs/reference/project.schema.json" in (folder / "project.yaml").read_text()
    finally:
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()


def test_a_bad_name_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="lower case"):
        new.write_project("Scam Users", "trust", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_workspace_says_what_starts_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert runs.main(["--workspace", str(tmp_path)]) == 0
    assert "millrace run PROJECT_DIR" in capsys.readouterr().out
    assert runs.main(["--workspace", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert models.main(["--workspace", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_an_unknown_run_is_said_to_be_unknown(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="millrace runs"):
        runs.main(["--show", "nowhere", "--workspace", str(tmp_path)])


def test_without_a_terminal_each_step_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with screen.RunScreen("churn") as drawn:
        drawn.show({"ingest": StepRecord(step="ingest", status="running")})
        drawn.show({"ingest": StepRecord(step="ingest", status="done", seconds=1.5, peak_mb=200, facts={"rows": 10})})
        drawn.show({"ingest": StepRecord(step="ingest", status="done", seconds=1.5, peak_mb=200, facts={"rows": 10})})
    printed = capsys.readouterr().out
    assert printed.count("ingest") == 1
    assert "rows 10" in printed


@pytest.mark.parametrize("name", sorted(PAGES))
def test_generated_pages_are_up_to_date(name: str) -> None:
    assert PAGES[name]() == (ROOT / "docs" / "reference" / name).read_text(), "run `make generate`"
