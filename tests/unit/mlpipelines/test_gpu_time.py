"""What a step held of GPUs is known while it goes on, after it, and after it was killed."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlpipelines.gpu_time import gpu_seconds, metered
from mlpipelines.progress import RUN_ID
from mlpipelines.workspace import Workspace

HOLD = """
import sys, time
from pathlib import Path
from mlpipelines.gpu_time import metered
with metered(Path(sys.argv[1]), 2, every=0.05):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setenv(RUN_ID, "run-1")
    return Workspace(tmp_path)


def held(workspace: Workspace) -> float:
    found = gpu_seconds(workspace, "scam", "run-1")
    assert found is not None
    return found


def test_attempts_of_a_run_add_up_by_how_many_gpus_each_held(workspace: Workspace) -> None:
    began = time.time()
    for gpus in (1, 4):
        with metered(workspace.project("scam").gpu_time, gpus):
            time.sleep(0.1)
    assert 0.5 <= held(workspace) <= 4 * (time.time() - began)
    assert gpu_seconds(workspace, "scam", "another") == 0.0


def test_a_step_that_is_killed_is_known_up_to_its_last_word(workspace: Workspace) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(workspace.project("scam").gpu_time)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        while held(workspace) < 1.0:  # two GPUs for half a second
            assert process.poll() is None
            time.sleep(0.02)
        process.kill()
    known = held(workspace)
    assert known >= 1.0
    time.sleep(0.2)
    assert held(workspace) == known


def test_a_step_that_fails_is_counted_and_one_without_gpus_writes_nothing(workspace: Workspace) -> None:
    notes = workspace.project("scam").gpu_time
    with metered(notes, 0):
        time.sleep(0.05)
    assert not notes.exists()
    with pytest.raises(ValueError, match="broke"), metered(notes, 1):
        _break_after(0.05)
    assert held(workspace) >= 0.05


def _break_after(seconds: float) -> None:
    time.sleep(seconds)
    raise ValueError("broke")


def test_what_cannot_be_seen_is_not_nothing(tmp_path: Path) -> None:
    assert gpu_seconds(Workspace(tmp_path / "not mounted"), "scam", "run-1") is None
