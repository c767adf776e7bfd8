"""The commands that a person types, for end-to-end tests: in a process of their own, in a workspace of their own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MILLRACE = str(Path(sys.executable).parent / "millrace")


def environment(workspace: Path) -> dict[str, str]:
    """Ours, with the workspace that commands take."""
    return {**os.environ, "MILLRACE_WORKSPACE": str(workspace)}


def millrace(*words: str | Path, workspace: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    """`millrace WORDS…`; fails with all that was said unless it ends with `code`, and at a traceback in any case."""
    result = subprocess.run([MILLRACE, *map(str, words)], capture_output=True, text=True, check=False, env=environment(workspace))
    said = f"{result.stdout}\n{result.stderr}"
    assert result.returncode == code, f"exit {result.returncode}\n{said}"
    assert "Traceback" not in said
    return result


def run(project: Path, *words: str | Path, workspace: Path, code: int = 0) -> dict[str, Any]:
    """`millrace run PROJECT --json WORDS…`: its record."""
    found: dict[str, Any] = json.loads(millrace("run", project, "--json", *words, workspace=workspace, code=code).stdout)
    return found


def versions(model: str, workspace: Path) -> list[dict[str, Any]]:
    """`millrace models MODEL --json`: its versions."""
    found: list[dict[str, Any]] = json.loads(millrace("models", model, "--json", workspace=workspace).stdout)
    return found


@contextlib.contextmanager
def served(model: str, workspace: Path, ready: Path) -> Iterator[str]:
    """The REST address of `millrace serve MODEL`; the file `ready` is written by it."""
    words = ["serve", model, "--grpc-port", "0", "--rest-port", "0", "--ready-file", str(ready), "--implementation", "python"]
    with subprocess.Popen([MILLRACE, *words], env=environment(workspace), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            deadline = time.monotonic() + 300
            while not ready.exists():
                assert server.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.1)
            yield json.loads(ready.read_text())["rest"]
        finally:
            server.terminate()
