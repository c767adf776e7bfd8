"""`kubectl` as its user types it, against a cluster that somebody else runs."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import binaries


def kubectl(kubeconfig: str, *words: str, given: Any = None) -> str:
    """What one command says that must work; `given` is an object for its standard input."""
    command = [str(binaries.paths(["kubectl"])["kubectl"]), *words]
    told = json.dumps(given) if given else None
    done = subprocess.run(command, env=os.environ | {"KUBECONFIG": kubeconfig}, input=told, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"kubectl {' '.join(words)}: {done.stderr}"
    return done.stdout
