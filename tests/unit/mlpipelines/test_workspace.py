"""What outlives a run is written whole or not at all, and by one run at a time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlpipelines.errors import Conflict
from mlpipelines.lock import is_held, only_run
from mlpipelines.workspace import create_folder, find_workspace, read_json, write_json
from mlserving.workspace import write_whole


def test_the_argument_wins_over_the_environment_and_that_over_the_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_workspace().root == tmp_path / ".millrace"
    monkeypatch.setenv("MILLRACE_WORKSPACE", str(tmp_path / "env"))
    assert find_workspace().root == tmp_path / "env"
    assert find_workspace("arg").root == tmp_path / "arg"


def test_a_file_is_replaced_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"n": 1})
    write_json(tmp_path / "a.json", {"n": 2})
    assert read_json(tmp_path / "a.json") == {"n": 2}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    write_whole(tmp_path / "a", "old")
    with pytest.raises(TypeError):
        write_whole(tmp_path / "a", 5)  # type: ignore[arg-type]  # the failure is the point
    assert (tmp_path / "a").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    def half(folder: Path) -> None:
        (folder / "one").write_text("1")
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space"):
        create_folder(tmp_path / "made", half)
    assert list(tmp_path.iterdir()) == []
    create_folder(tmp_path / "made", lambda folder: (folder / "one").write_text("1"))
    with pytest.raises(Conflict):
        create_folder(tmp_path / "made", lambda folder: (folder / "one").write_text("2"))
    assert (tmp_path / "made" / "one").read_text() == "1"


def test_a_second_run_is_told_who_is_open(tmp_path: Path) -> None:
    with only_run(tmp_path / "lock", "run-1"):
        assert is_held(tmp_path / "lock")
        with pytest.raises(Conflict, match="run-1"), only_run(tmp_path / "lock", "run-2"):
            pass
    assert not is_held(tmp_path / "lock")


def test_the_lock_is_free_only_when_the_last_child_is_gone(tmp_path: Path) -> None:
    holder = f"""
import os, subprocess, sys
from pathlib import Path
from mlpipelines.lock import only_run
with only_run(Path({str(tmp_path / "lock")!r}), "run-1") as lock:
    child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=0, pass_fds=(lock,))
    print("held", flush=True)
    os.kill(os.getpid(), 9)
"""
    with subprocess.Popen([sys.executable, "-c", holder], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # the command is dead, its child still reads
        assert is_held(tmp_path / "lock")
        assert process.stdin is not None
        process.stdin.close()
        process.stdout.read()  # returns when the child has closed its end too
    assert not is_held(tmp_path / "lock")
