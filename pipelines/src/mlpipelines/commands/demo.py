"""`make demo`: the whole flow on generated bank transactions, told in two screens.

It types what a person would type: `millrace run`, `millrace serve --tracks`, one request over REST and one over gRPC. Then it lets the loop close by
itself (`demo_loop`): what is asked drifts, and a second version is trained, takes over and is taken back. Nothing in it knows more than the commands do.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from rich.panel import Panel
from rich.table import Table

from mlpipelines.commands import demo_loop, screen
from mlpipelines.commands import run as run_command
from mlpipelines.commands.demo_programs import came_up, started
from mlpipelines.commands.demo_stream import Stream
from mlpipelines.errors import MillraceError, Unavailable
from mlpipelines.project import Project
from mlpipelines.project_file import load_project
from mlpipelines.publishing import registry
from mlpipelines.run import RunRequest, run
from mlpipelines.runs import RunRecord
from mlpipelines.workspace import Workspace, find_workspace

PROJECT = Path("pipelines/projects/transactions")
SECOND = PROJECT / "quick-rollout.yaml"
"""Laid over the project for what the trigger trains: another seed, published as a canary, rolled out by itself."""
LABEL = "category"
_LOGGED = ("deployment.log.share=1.0", "deployment.log.features=[amount, team]")
"""What the monitor reads; a project says it in its project.yaml."""
_FIRST_SEED = 17
_QUESTIONS = 500
START_SECONDS = 300


def main(argv: list[str] | None = None) -> int:
    """Run the demo; returns 0 if a model serves at the end of it."""
    parser = argparse.ArgumentParser(prog="make demo", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workspace", default=".millrace/demo")
    parser.add_argument("--rows", type=int, default=60_000)
    arguments = parser.parse_args(argv)
    started = time.monotonic()
    workspace, rows = find_workspace(arguments.workspace), f"source.options.rows={arguments.rows}"
    project = load_project(PROJECT, settings=[rows, *_LOGGED])
    first = _run(project, workspace, f"{project.name}: {arguments.rows:,} generated card transactions, from raw rows to a served model")
    champion_stays = first.status == "rejected" and first.failure is None  # Millrace's code changed, and the model is no better for it
    if run_command.exit_code_of(first) != 0 and not champion_stays:
        return run_command.exit_code_of(first)
    seed = f"training.seed={_FIRST_SEED + _versions(workspace, project.model_name)}"  # another version each time
    once = demo_loop.one_more_training(_millrace(), project.model_name, workspace.root)
    projects = demo_loop.write_project(PROJECT, SECOND, [rows, seed, *once], workspace.root / "demo" / "projects")
    questions = _sealed_transactions(workspace, project)
    with _server(workspace, project.model_name) as addresses:
        answers = {
            protocol: _ask(project.model_name, f"--{protocol.lower()}", addresses[protocol.lower()], questions[0])
            for protocol in ("REST", "gRPC")
        }
        _print_answers(registry.champion_of(workspace, project.model_name), questions[0], answers)
        typed = [_typed(question, project) for question in questions]
        stream = Stream(addresses["rest"], project.model_name, typed)
        told = demo_loop.show(_millrace(), project.model_name, stream, projects=projects, workspace=workspace.root, questions=typed)
    _print_end(told, arguments.workspace, time.monotonic() - started)
    return 1 if stream.failed else 0


def _run(project: Project, workspace: Workspace, title: str) -> RunRecord:
    request = RunRequest(project=project, project_dir=PROJECT, workspace=workspace, reason="make demo")
    with screen.RunScreen(title) as drawn:
        record = run(request, drawn.show)
    run_command.print_outcome(record)
    return record


@contextlib.contextmanager
def _server(workspace: Workspace, model: str) -> Iterator[Mapping[str, str]]:
    """`millrace serve --tracks` on free ports of this machine, for as long as the demo needs it."""
    with tempfile.TemporaryDirectory() as folder:
        ready, log = Path(folder) / "ready.json", Path(folder) / "log"
        command = [
            _millrace(),
            "serve",
            "--tracks",
            model,
            "--workspace",
            str(workspace.root),
            "--grpc-port",
            "0",
            "--rest-port",
            "0",
            "--admin-port",
            "0",
            "--log-seconds",
            "2",
            "--ready-file",
            str(ready),
        ]
        with started(command, log) as process:
            if not came_up(process, ready.exists, START_SECONDS):
                raise Unavailable(f"the model server did not start:\n{log.read_text()}\nTry it by hand: `millrace serve --workspace …`.")
            addresses: dict[str, str] = json.loads(ready.read_text())
            yield addresses


def _sealed_transactions(workspace: Workspace, project: Project) -> list[dict[str, Any]]:
    """Complete transactions of the sealed test set: features, and how they were booked."""
    assert project.label is not None
    (file, *_) = sorted(workspace.project(project.name).runs.glob("*/artifacts/*/ingest/test/test.parquet"), reverse=True)
    names = [*project.features, project.label.column]
    rows: list[dict[str, Any]] = pq.read_table(file, columns=names).drop_null().slice(0, _QUESTIONS).to_pylist()
    return rows


def _typed(question: Mapping[str, Any], project: Project) -> dict[str, Any]:
    """What a request says of it: the features alone."""
    return {name: question[name] for name in project.features}


def _ask(model: str, protocol: str, address: str, question: Mapping[str, str]) -> Any:
    """One real request, and its outputs."""
    values = [f"{name}={value}" for name, value in question.items() if name != LABEL]
    command = [_millrace(), "predict", model, protocol, "--address", address, "--json", *values]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise Unavailable(f"the request failed: {result.stderr}")
    return json.loads(result.stdout)


def _versions(workspace: Workspace, model: str) -> int:
    """How many versions the registry has had."""
    newest = registry.newest_version(workspace, model)
    return newest.version if newest is not None else 0


def _print_answers(champion: registry.RegisteredVersion | None, question: Mapping[str, Any], answers: Mapping[str, Any]) -> None:
    told = Table.grid(padding=(0, 2))
    asked = f"{question['merchant']!r}, {float(question['amount']):.2f} on team {question['team']!r}; it was booked as {question[LABEL]}"
    told.add_row("asked", asked)
    for protocol, answer in answers.items():
        told.add_row(protocol, _answer_text(answer))
    assert champion is not None  # a run was blessed, now or before
    title = f"{champion.model} version {champion.version} answers"
    screen.console().print(Panel(told, title=title, title_align="left", expand=False, border_style="green"))


def _print_end(told: Mapping[str, str], workspace: str, seconds: float) -> None:
    out, table = screen.console(), Table.grid(padding=(0, 2))
    for name, text in told.items():
        table.add_row(name, text)
    out.print(
        Panel(
            table,
            title="what drifted was trained again, took over, and was taken back",
            title_align="left",
            expand=False,
            border_style="green",
        )
    )
    out.print(f"All of it took {seconds:.0f} s. Next:")
    prefix = ".venv/bin/millrace"
    out.print(f"  {prefix} serve --tracks transactions --workspace {workspace}   and, in a second terminal:", soft_wrap=True)
    out.print(f"  {prefix} predict transactions merchant='TESCO STORES 3312' amount=23.5 --json", soft_wrap=True)
    out.print(f"  {prefix} models transactions --workspace {workspace}           the versions, their verdicts and lineage", soft_wrap=True)
    out.print(
        f"  {prefix} why transactions --workspace {workspace}              what was decided, trained and rolled out, and why",
        soft_wrap=True,
    )
    out.print(f"  {prefix} audit list transactions --workspace {workspace}       who moved which version, when and why", soft_wrap=True)


def _answer_text(answer: Any) -> str:
    found = answer[0] if isinstance(answer, list) else answer
    outputs = found.get("outputs", found.get("predictions", found))
    first = outputs[0] if isinstance(outputs, list) else outputs
    return f"{first['label']} ({float(first['confidence']):.0%} sure)"


def _millrace() -> str:
    return str(Path(sys.executable).parent / "millrace")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except MillraceError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
