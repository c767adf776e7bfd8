"""A release as an archive, kept in tests/releases/, so that the upgrade from it is rehearsed when git's history is not at hand: its code, its charts, its plan.

    .venv/bin/python tools/freeze_release.py 0.3.0 0.3.0     (a commit, and the number that it was released as)

What deploys a platform is in it, and the little of other packages that this imports; the libraries are those of today.
"""

from __future__ import annotations

import lzma
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "tests" / "releases"
PATHS = [
    *("helm", "k8s", "platform/src", "platform/environments"),
    *(f"gpu-queue/src/gpuqueue/{file}.py" for file in ("__init__", "labels")),
    *(f"serving/src/mlserving/{file}.py" for file in ("__init__", "errors", "field_tables", "settings_file")),
]
SINCE = ["platform/release.yaml"]
"""What the first of them did not have yet."""


def frozen(commit: str) -> bytes:
    """The archive of a commit, as tar in xz. The same commit gives the same bytes."""
    there = subprocess.run(
        ["git", "ls-tree", "--name-only", commit, *SINCE], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    command = ["git", "archive", "--format=tar", commit, *PATHS, *there]
    return lzma.compress(subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout, preset=9 | lzma.PRESET_EXTREME)


def main(commit: str, version: str) -> int:
    """Write it."""
    FOLDER.mkdir(exist_ok=True)
    file = FOLDER / f"platform-{version}.tar.xz"
    file.write_bytes(frozen(commit))
    print(f"{file.relative_to(ROOT)}: {file.stat().st_size / 1024:.0f} KB of {commit}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
