"""The child process of `millrace run`: compile the project, then run that YAML with kfp.local.

It is a process of its own, so that the command's process stays light, draws progress, and can end everything below with
one signal to the process group. It is told what to do by `plan.json` in the run's folder and says how it goes through
`events.jsonl` (see `mlpipelines.progress`); its own output, with every step's, is `log.txt`.
"""

from __future__ import annotations

import os
import signal
import sys
import warnings
from pathlib import Path
from types import FrameType
from typing import Any

from mlpipelines.inside import quiet_libraries
from mlpipelines.progress import recorded
from mlpipelines.project import Project
from mlpipelines.project_file import from_json
from mlpipelines.step_processes import end_with_parent, steps_as_forks
from mlpipelines.workspace import find_workspace, read_json

PLAN = "plan.json"
PIPELINE = "pipeline.yaml"


def main(run_dir: Path) -> int:
    """Run the plan in `run_dir`; returns 0 once it ended, well or not: the events tell how."""
    _end_with_the_command()
    quiet_libraries()
    warnings.filterwarnings("ignore", category=RuntimeWarning, module="kfp")  # it wants "python" in image names
    plan = read_json(run_dir / PLAN)
    project = from_json(plan["project"])
    with steps_as_forks():
        _compile(project, plan, run_dir)
        run_pipeline(run_dir, plan, cache=find_workspace(plan["workspace"]).project(project.name).cache)
    return 0


def _compile(project: Project, plan: dict[str, Any], run_dir: Path) -> None:
    with recorded("compile"):
        from mlpipelines.evaluation.metrics import require_metrics
        from mlpipelines.pipeline import compile_pipeline

        require_metrics(project)  # a misspelt metric should not cost a training
        compile_pipeline(project, Path(plan["project_dir"]), run_dir / PIPELINE)


def _end_with_the_command() -> None:
    """If the command is killed outright, its run ends too, the step included: nobody would be there to tell how it went."""

    def end_group(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.killpg(0, signal.SIGTERM)
        os._exit(128 + signal.SIGTERM)

    signal.signal(signal.SIGTERM, end_group)
    end_with_parent()


def run_pipeline(run_dir: Path, plan: dict[str, Any], *, cache: Path) -> None:
    """Run the compiled YAML step by step in subprocesses, reusing results from `cache`."""
    from kfp import components, local

    local.init(
        runner=local.SubprocessRunner(use_venv=False),
        pipeline_root=str(run_dir / "artifacts"),
        raise_on_error=False,
        enable_caching=plan["cache"],
        cache_root=str(cache),
    )
    components.load_component_from_file(str(run_dir / PIPELINE))(**plan["arguments"])


if __name__ == "__main__":
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    sys.exit(main(Path(sys.argv[1])))
