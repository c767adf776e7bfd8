"""How a local run starts its steps: as forks of one process that has imported the heavy libraries already.

A step is a process of its own, with the component's source and arguments, exactly as in the compiled YAML. What kfp.local does
for each is start a Python that imports TensorFlow, Beam and MLflow again, six to eight seconds every time. `StepProcesses`
hands its steps to `multiprocessing`'s fork server instead, which imports them once, while the rows are still being read.
Nothing is shared but what was imported: no session, no device, no Beam pipeline exists before the fork.

Where processes cannot safely be forked (not Linux), and for `COLD` steps, a fresh Python is started. A `LIGHT` step would be over before that is there:
it is a fork of the process that runs the pipeline.
"""

from __future__ import annotations

import atexit
import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.context import ForkContext, ForkServerContext
from pathlib import Path
from typing import Any

from mlpipelines.progress import RUN_DIR

COLD = ("ingest",)
"""Steps that run while the libraries are being imported, and need none of them."""
LIGHT = ("labels",)
"""Steps before those that do no more than look at files."""
_FUNCTION = "--function_to_execute"
_SCRIPT, _SOURCE, _ARGUMENTS = 2, 3, 4
"""Where a component's command (`sh -ec SCRIPT SOURCE ARGUMENTS…`) has them."""
_PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """Have the kernel send this process SIGTERM when the one that started it is gone; only Linux does that."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class StepProcesses:
    """Runs the commands of components, one process each."""

    def __init__(self) -> None:
        self._forks = sys.platform == "linux"
        if self._forks:
            self._server = multiprocessing.get_context("forkserver")
            self._server.set_forkserver_preload(["mlpipelines.preloaded"])
            forkserver.ensure_running()

    def run(self, command: Sequence[str]) -> int:
        """Run one component's command to its end; returns its exit code, negative where a signal ended it.

        Output goes where this process's output goes.
        """
        step = command[command.index(_FUNCTION) + 1]
        if not self._forks or step in COLD:
            return _fresh(command)
        return _forked(command, multiprocessing.get_context("fork") if step in LIGHT else self._server)

    def close(self) -> None:
        """End the process that was forked from, and wait until it is gone."""
        if self._forks:
            forkserver._forkserver._stop()  # type: ignore[attr-defined]  # noqa: SLF001  # there is no public way to wait for it


def _forked(command: Sequence[str], context: ForkContext | ForkServerContext) -> int:
    process = context.Process(target=_execute, args=(command[_SOURCE], list(command[_ARGUMENTS:])), name="step")
    process.start()
    process.join()
    return process.exitcode if process.exitcode is not None else 1


def _fresh(command: Sequence[str]) -> int:
    script = command[_SCRIPT].replace("python3 -m", f"{sys.executable} -m")
    sys.stdout.flush()
    folder = os.environ.get(RUN_DIR)
    own = {"TMPDIR": folder} if folder else {}  # the component's command makes a temporary folder and leaves it
    return subprocess.run([*command[:_SCRIPT], script, *command[_SOURCE:]], check=False, env={**os.environ, **own}).returncode


def _execute(source: str, arguments: list[str]) -> None:
    """In the fork: what the component's own command does, without starting a Python."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a fork of the run's process would end the whole run
    end_with_parent()
    from kfp.dsl import executor_main

    os.environ["_KFP_RUNTIME"] = "true"
    try:
        with tempfile.TemporaryDirectory(prefix="step-", dir=os.environ.get(RUN_DIR)) as folder:
            module = Path(folder) / "ephemeral_component.py"
            module.write_text(source, encoding="utf-8")
            sys.argv = ["executor_main.py", "--component_module_path", str(module), *arguments]
            executor_main.executor_main()
    finally:
        atexit._run_exitfuncs()  # noqa: SLF001  # a fork ends without them


@contextmanager
def steps_as_forks() -> Iterator[None]:
    """Within it, kfp.local's subprocess runner starts steps through `StepProcesses`.

    Replaces one method of kfp 2.17's `SubprocessTaskHandler`, which also writes the interpreter's path into every argument
    that holds the word python3, paths of a workspace among them.
    """
    from kfp.local import status
    from kfp.local.subprocess_task_handler import SubprocessTaskHandler

    processes = StepProcesses()

    def run(handler: Any) -> Any:
        return status.Status.SUCCESS if processes.run(handler.full_command) == 0 else status.Status.FAILURE

    original, SubprocessTaskHandler.run = SubprocessTaskHandler.run, run
    try:
        yield
    finally:
        SubprocessTaskHandler.run = original
        processes.close()
