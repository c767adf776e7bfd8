"""The whole flow on one machine, through the commands that a person types, and broken on purpose."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from typed_commands import MILLRACE, environment, millrace, run, versions

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
STEPS = ("ingest", "statistics", "validate", "transform", "train", "evaluate", "register", "publish")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """What `millrace new` writes, with few rows."""
    millrace("new", "visits", "--team", "web", "--into", tmp_path, workspace=tmp_path / "w")
    file = tmp_path / "visits" / "project.yaml"
    file.write_text(file.read_text().replace("rows: 20000", "rows: 6000").replace("batch_size: 512", "batch_size: 128"))
    return file.parent


def start(project: Path, workspace: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [MILLRACE, "run", str(project), "--json", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(workspace),
    )


def wait_for(step: str, workspace: Path, after: set[Path], event: str = "started") -> Path:
    """The folder of the newest run, once `step` has begun in it."""
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        for folder in set(workspace.glob("projects/visits/runs/*")) - after:
            events = folder / "events.jsonl"
            if events.exists() and any(
                line.endswith("}") and json.loads(line)["step"] == step and json.loads(line)["event"] == event
                for line in events.read_text().splitlines()
            ):
                return folder
        time.sleep(0.02)
    raise AssertionError(f"{step} never {event}")


def processes_of(folder: Path) -> list[int]:
    """Every live process that was started for the run in `folder`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                started_with = (entry / "environ").read_bytes()
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
            if f"MILLRACE_RUN_DIR={folder}".encode() in started_with and state != "Z":
                found.append(int(entry.name))
    return found


def test_a_new_project_runs_is_served_and_does_nothing_when_nothing_is_new(project: Path, tmp_path: Path) -> None:
    workspace = tmp_path / "w"

    first = run(project, "--accept-schema", workspace=workspace)
    assert first["status"] == "blessed"
    assert (project / "schema.pbtxt").exists()
    assert (workspace / "models" / "visits" / "1" / "saved_model.pb").exists()
    assert {name for name, step in first["steps"].items() if step["status"] == "done"} == set(STEPS)
    (trace,) = workspace.glob("mlartifacts/visits/*/artifacts/training/logs/train/plugins/profile/*/*.xplane.pb")
    assert trace.stat().st_size > 0, "the run in MLflow has its profile, where TensorBoard looks for it"

    again = run(project, workspace=workspace)
    assert again["status"] == "unchanged"
    assert {name for name, step in again["steps"].items() if step["status"] == "done"} <= {"validate", "evaluate"}
    assert [v["version"] for v in versions("visits", workspace)] == [1]
    assert "champion" in versions("visits", workspace)[0]["aliases"]

    compared = json.loads(millrace("compare", "--last", "2", "--project", "visits", "--json", workspace=workspace).stdout)
    assert len(compared) == 2
    assert "visits" in millrace("models", workspace=workspace).stdout
    assert first["run"] in millrace("runs", workspace=workspace).stdout


def test_killed_in_any_step_nothing_is_half_written_and_the_next_run_goes_on(project: Path, tmp_path: Path) -> None:
    workspace = tmp_path / "w"
    run_words = ("--accept-schema",)
    for step in STEPS:
        seen = set(workspace.glob("projects/visits/runs/*"))
        with start(project, workspace, *run_words) as command:
            folder = wait_for(step, workspace, seen)
            for process in [*processes_of(folder), command.pid]:
                try:
                    os.kill(process, signal.SIGKILL)
                except ProcessLookupError:
                    continue
        store = workspace / "models" / "visits"
        published = [p.name for p in store.glob("[0-9]*")] if store.exists() else []
        assert published in ([], ["1"]), f"killed in {step}"
        assert all((store / name / "saved_model.pb").exists() for name in published)
    last = run(project, *run_words, workspace=workspace)
    assert last["status"] in ("blessed", "unchanged")
    assert sum("champion" in version["aliases"] for version in versions("visits", workspace)) == 1
    leftovers = [path.name for path in (workspace / "models" / "visits").glob(".*") if path.name != ".lock"]
    assert not leftovers, "half a version is tidied away; the lock's own file stays"


def test_ctrl_c_stops_every_process_and_the_next_run_reuses_what_was_done(project: Path, tmp_path: Path) -> None:
    workspace = tmp_path / "w"
    with start(project, workspace, "--accept-schema") as command:
        folder = wait_for("transform", workspace, set())
        command.send_signal(signal.SIGINT)
        output, _ = command.communicate(timeout=60)
    assert command.returncode == 130
    assert json.loads(output)["status"] == "interrupted"
    assert processes_of(folder) == []
    assert run(project, workspace=workspace)["steps"]["ingest"]["status"] == "reused"


def test_killing_only_the_command_ends_its_run(project: Path, tmp_path: Path) -> None:
    workspace = tmp_path / "w"
    with start(project, workspace, "--accept-schema") as command:
        folder = wait_for("statistics", workspace, set())
        command.kill()
    deadline = time.monotonic() + 30
    while processes_of(folder) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert processes_of(folder) == []
    assert json.loads(millrace("runs", "--json", workspace=workspace).stdout)[0]["status"] == "killed"


def test_a_second_run_at_the_same_time_is_told_who_is_first(project: Path, tmp_path: Path) -> None:
    workspace = tmp_path / "w"
    with start(project, workspace, "--accept-schema") as first:
        folder = wait_for("ingest", workspace, set())
        second = millrace("run", project, workspace=workspace, code=5)
        first.send_signal(signal.SIGTERM)
        first.communicate(timeout=60)
    assert folder.name in second.stderr
    assert first.returncode == 130


def test_without_a_reviewed_schema_the_first_run_proposes_one_and_says_how_to_accept_it(project: Path, tmp_path: Path) -> None:
    workspace = tmp_path / "w"
    refused = run(project, workspace=workspace, code=3)
    assert "millrace schema accept" in refused["failure"]["message"]
    assert not (project / "schema.pbtxt").exists()
    millrace("schema", "accept", project, workspace=workspace)
    assert "page" in millrace("schema", "show", project, workspace=workspace).stdout
    with start(project, workspace) as command:
        wait_for("transform", workspace, set(workspace.glob("projects/visits/runs/" + refused["run"])))
        command.send_signal(signal.SIGINT)
        command.communicate(timeout=60)


def test_rows_that_break_the_schema_stop_the_run_and_change_nothing(project: Path, tmp_path: Path) -> None:
    workspace = tmp_path / "w"
    run(project, workspace=workspace, code=3)
    millrace("schema", "accept", project, workspace=workspace)
    generator = project / "generator.py"
    generator.write_text(generator.read_text().replace('"docs", "blog"', '"docs", "a-page-nobody-knows"'))
    before = sorted(p for p in workspace.glob("models/**/*"))
    refused = run(project, workspace=workspace, code=3)
    assert refused["failure"]["kind"] == "DataRejected"
    assert any(row["column"] == "page" and "a-page-nobody-knows" in str(row["examples"]) for row in refused["failure"]["report"])
    assert sorted(p for p in workspace.glob("models/**/*")) == before
