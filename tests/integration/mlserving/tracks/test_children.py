"""Processes that should run: real ones, killed for real."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from mlserving.tracks.children import Child
from waiting import eventually

STAYS = "import json, os, pathlib, sys, time; pathlib.Path(sys.argv[1]).write_text(json.dumps({'pid': os.getpid(), 'grpc': 'a:1'})); time.sleep(600)"
PARENT = """
import sys, time
from pathlib import Path
from mlserving.tracks.children import Child
folder = Path(sys.argv[1])
child = Child("the child", [sys.executable, "-c", sys.argv[2], str(folder / "ready")], folder / "ready", folder / "log")
child.tend()
time.sleep(600)
"""


def child(folder: Path, code: str = STAYS, **more: Callable[[], float]) -> Child:
    ready = folder / "ready.json"
    return Child("the child", [sys.executable, "-c", code, str(ready)], ready, folder / "log", **more)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_child_that_is_killed_is_started_again_and_its_old_address_is_forgotten(tmp_path: Path) -> None:
    one = child(tmp_path)
    one.tend()
    eventually("the child is ready", one.ready)
    first = int((one.ready() or {})["pid"])
    os.kill(first, signal.SIGKILL)
    eventually("the child has ended", one.ended)
    one.tend()
    assert not one.ready_file.exists(), "nobody is told of it while it is dead"
    eventually("another child is ready", lambda: (one.tend(), one.ready())[1] and int((one.ready() or {})["pid"]) != first)
    one.end(5)
    assert one.ended()
    assert not one.ready_file.exists()


def test_a_child_that_dies_at_once_is_given_longer_and_longer_pauses_and_its_last_words_are_told(tmp_path: Path) -> None:
    now = [0.0]
    dying = child(tmp_path, "import sys; print('no such model', flush=True); sys.exit(4)", now=lambda: now[0])
    starts = []
    for _ in range(400):
        before = dying._process
        dying.tend()
        if dying._process is not None and dying._process is not before:
            starts.append(now[0])
            dying._process.wait()
        now[0] += 0.1
    assert [round(later - earlier) for earlier, later in itertools.pairwise(starts)][1:5] == [1, 2, 4, 8]
    assert "last with exit code 4: no such model" in dying.trouble


def test_a_child_ends_with_its_parent_even_if_that_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path), STAYS]) as parent:
        eventually("the child's file is there", (tmp_path / "ready").exists)
        eventually("the child's file is written", (tmp_path / "ready").read_text)
        pid = json.loads((tmp_path / "ready").read_text())["pid"]
        assert alive(pid)
        parent.kill()
    eventually("the child has ended", lambda: not alive(pid), 10)
