"""`gpuq` as people type it: in a process of its own, with a kubeconfig of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def gpuq(*words: str, kubeconfig: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    """`gpuq WORDS…`; fails with all that was said unless it ends with `code`, and at a traceback in any case."""
    environment = {**os.environ, "KUBECONFIG": str(kubeconfig), "COLUMNS": "160"}
    result = subprocess.run([sys.executable, "-m", "gpuqueue", *words], capture_output=True, text=True, check=False, env=environment)
    said = f"{result.stdout}\n{result.stderr}"
    assert result.returncode == code, f"exit {result.returncode}\n{said}"
    assert "Traceback" not in said
    return result


def answer(*words: str, kubeconfig: Path, code: int = 0) -> Any:
    """`gpuq WORDS… --json`: the answer."""
    return json.loads(gpuq(*words, "--json", kubeconfig=kubeconfig, code=code).stdout)
