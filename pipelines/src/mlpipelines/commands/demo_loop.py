"""The second half of `make demo`: under a steady stream of requests rows drift, and what follows from that follows by itself, to a new version that answers.

Everything that moves is what a team lets run: `millrace monitor`, `millrace trigger serve`, Prometheus with the chart's rules and Alertmanager. This
process only asks, changes what it asks, and tells what it sees; where the two programs are not at hand it posts their message itself.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from mlpipelines.commands import screen
from mlpipelines.commands.demo_programs import Running, running
from mlpipelines.commands.demo_stream import BUSY, Stream
from mlpipelines.errors import Unavailable
from mlpipelines.project_file import load_project

_LONGEST_SECONDS = 600.0
_LOOK_SECONDS = 1.0
_USUAL_SECONDS = 8.0
"""So long nothing drifts."""
_TIMES = 40
_SAYS_NOTHING = ("started", "resolved", "duplicate")
"""Decisions that are told otherwise, or are the same alert again."""
_STEPS = ("the step", "every step")
"""How texts begin that tell of more than how many requests have come."""


def write_project(project_dir: Path, overlay: Path, settings: Sequence[str], into: Path) -> Path:
    """A copy of the project with an overlay and settings laid over it, for a trigger to read. Returns the folder of projects."""
    project = load_project(project_dir, overlays=[overlay], settings=settings)
    folder = into / project_dir.name
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(project_dir, folder, ignore=shutil.ignore_patterns("*.yaml", "__pycache__"))
    (folder / "project.yaml").write_text(yaml.safe_dump(project.model_dump(mode="json", exclude_unset=True), sort_keys=False))
    return into


def one_more_training(millrace: str, model: str, workspace: Path) -> list[str]:
    """Settings that let the trigger start one training more than it has in this workspace: the drift stays, and one shows it."""
    so_far = len(json.loads(_typed([millrace, "why", model, "--last", "1000", "--json", "--workspace", str(workspace)]))["runs"])
    return [f"retraining.budget.runs={so_far + 1}", "retraining.budget.days=365"]


def show(
    millrace: str, model: str, stream: Stream, *, projects: Path, workspace: Path, questions: Sequence[Mapping[str, Any]]
) -> Mapping[str, str]:
    """From drift to a new version, and back. Returns what to tell of it.

    Args:
        millrace: the command.
        model: its name.
        stream: asks the model.
        projects: what `write_project` wrote.
        workspace: where everything lies.
        questions: what it asks while nothing drifts.

    Raises:
        Unavailable: something did not start, or did not come about in time.
    """
    began = time.monotonic()
    here = ["--workspace", str(workspace)]

    def say(text: str) -> None:
        screen.console().print(f"  {time.monotonic() - began:4.0f} s  {text}", soft_wrap=True, markup=False)

    screen.console().print("\nThe loop closes by itself: drift → alert → decision → training → verdict → rollout", style="bold")
    with stream.flowing():
        with running(millrace, model, projects, workspace) as programs:
            say(f"requests flow; the monitor reads their log; {_who_tells(programs)}")
            time.sleep(_USUAL_SECONDS)
            stream.turn_to([{**question, "amount": float(question["amount"]) * _TIMES} for question in questions])
            say(f"from now on every amount is {_TIMES} times as large")
            _tell_the_trigger(programs, model, say)
            after = time.time() - (time.monotonic() - began)
            version = _watch(lambda: _why(millrace, model, here, after), say, stream)
        typed = time.monotonic()
        said = _typed([millrace, "rollout", "rollback", model, "--reason", "make demo shows it", *here])
        say(f"$ millrace rollout rollback {model}: {said.strip()}")
        stream.wait_until_gone(version)
        took = max(0.0, stream.last[version] - typed)
    counted = ", ".join(f"{count:,} by version {number}" for number, count in sorted(stream.answers.items()))
    return {
        "under a steady stream": f"drift, one training, canary, version {version} answers everything, rollback",
        "requests": f"{sum(stream.answers.values()) + stream.failed:,}: {counted}",
        "failed": f"{stream.failed}",
        "rollback": f"the last request answered by version {version} came {took:.1f} s after the command",
    }


def _who_tells(programs: Running) -> str:
    if programs.prometheus:
        return "Prometheus evaluates the chart's rules; Alertmanager tells the trigger"
    return "Prometheus and Alertmanager are not on PATH (`make tools` builds them), so this process posts their message itself"


def _tell_the_trigger(programs: Running, model: str, say: Callable[[str], None]) -> None:
    """Wait for the alert; where there is nobody who would tell of it, tell of it."""
    columns = _until(programs.drifting, "the monitor sees no drift")
    say(f"the monitor alarms: {', '.join(columns)}")
    if programs.prometheus:
        alert, *_ = _until(programs.firing, "Prometheus fires nothing")
        say(f"Prometheus fires {alert['labels']['alertname']}; Alertmanager posts it")
    else:
        programs.post(model, columns)
        say("the alert is posted to the trigger, as Alertmanager would")


def _watch(why: Callable[[], Mapping[str, Any]], say: Callable[[str], None], stream: Stream) -> str:
    """Tell what the trigger writes down, until the version that came of it answers everything. Returns that version."""
    told: list[str] = []
    deadline = time.monotonic() + _LONGEST_SECONDS
    while time.monotonic() < deadline:
        found = why()
        for line in _lines(found):
            if line not in told:
                told.append(line)
                say(line)
        if found["rollouts"]:
            stream.pause = BUSY  # a canary is judged on requests
        ended = next((rollout for rollout in found["rollouts"] if rollout["phase"] == "promoting" or rollout["state"] == "ended"), None)
        if ended is not None and ended["phase"] == "promoting":
            return str(ended["version"])
        failed = next((run for run in found["runs"] if run["outcome"] not in ("", "blessed")), None)
        if ended is not None or failed is not None:
            raise Unavailable(f"the loop ended early: {ended or failed}. See: millrace why")
        time.sleep(_LOOK_SECONDS)
    raise Unavailable("the loop did not come to its end in time. See: millrace why, and the logs in the workspace's folder demo")


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    """What has happened so far, oldest first."""
    for decision in reversed(found["decisions"]):
        if decision["reason"] == "started":
            yield f"the trigger decides: {decision['text']}"
    suppressed = [each for each in reversed(found["decisions"]) if each["signal"] == "drift" and each["reason"] not in _SAYS_NOTHING]
    if suppressed:
        yield f"and, of another alert: {suppressed[0]['reason']}. {suppressed[0]['text']}"
    for run in found["runs"]:
        if run["state"] != "wanted":
            yield f"{run['name']} trains"
        if run["outcome"]:
            yield f"{run['name']} is {run['outcome']}"
    for rollout in found["rollouts"]:
        if rollout["phase"]:
            yield f"version {rollout['version']}: {rollout['phase'].replace('_', ' ')}"
        if rollout["text"].startswith(_STEPS):
            yield f"version {rollout['version']}: {rollout['text']}"


def _why(millrace: str, model: str, here: Sequence[str], after: float) -> Mapping[str, Any]:
    """What `millrace why` tells of this demo."""
    found = json.loads(_typed([millrace, "why", model, "--json", *here]))
    names = {run["name"] for run in found["runs"] if run["decided_at"] >= after}
    return {
        "decisions": [each for each in found["decisions"] if each["at"] >= after],
        "runs": [run for run in found["runs"] if run["name"] in names],
        "rollouts": [rollout for rollout in found["rollouts"] if rollout["run"] in names],
    }


def _until(holds: Callable[[], Any], otherwise: str) -> Any:
    deadline = time.monotonic() + _LONGEST_SECONDS
    while not (found := holds()):
        if time.monotonic() > deadline:
            raise Unavailable(f"{otherwise} after {_LONGEST_SECONDS:.0f} s. What it says lies in the workspace's folder demo.")
        time.sleep(0.2)
    return found


def _typed(words: Sequence[str]) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Unavailable(f"`{' '.join(words[1:])}` failed:\n{done.stdout}{done.stderr}")
    return done.stdout
