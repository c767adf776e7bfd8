"""`make verify`: regenerate what is generated, format, lint, type-check, hold the import walls, and assert a clean tree.

Phase 1 writes, phase 2 only reads, phase 3 asks git whether phase 1 changed anything that is committed. CI and a laptop run
the same line, so a forgotten `make generate` is found before review. The story of the walls is in pyproject.toml.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = ROOT / ".venv" / "bin"

WRITE = {
    "reference pages": ["python", "-m", "mlpipelines.reference", "docs/reference"],
    "reference pages of the queue": ["python", "-m", "gpuqueue.reference", "docs/reference"],
    "reference pages of serving": ["python", "-m", "mlserving.reference", "docs/reference"],
    "reference pages of the platform": ["python", "-m", "mlplatform.reference", "docs/reference"],
    "dashboard of the queue": ["python", "tools/gpu_queue_dashboard.py"],
    "dashboard of served models": ["python", "tools/model_serving_dashboard.py"],
    "dashboard of a model's loop": ["python", "tools/retraining_dashboard.py"],
    "what the charts' values may be": ["python", "tools/chart_values.py"],
    "compiled pipelines": [
        "millrace",
        "compile",
        *(str(p.parent.relative_to(ROOT)) for p in sorted(ROOT.glob("pipelines/projects/*/project.yaml"))),
    ],
    "format": ["ruff", "format", "--quiet", "."],
}
CHECK = {
    "lint": ["ruff", "check", "--quiet", "."],
    "types": ["mypy", "platform/src", "platform/gke", "pipelines/src", "serving/src", "gpu-queue/src", "gpu-queue/image", "tools"],
    "types of tests and benchmarks": ["mypy", "--check-untyped-defs", "benchmarks"],
    "import walls": ["lint-imports", "--no-cache"],
}


def main() -> int:
    """Run every phase; returns 1 if anything is not as it should be."""
    failed = [name for name, command in {**WRITE, **CHECK}.items() if not _passes(name, command)]
    changed = subprocess.run(["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    if changed:
        print(f"\nThe tree is not clean. Look at the difference and commit it:\n{changed}", end="")
        failed.append("clean tree")
    print(f"\nverify: {'failed: ' + ', '.join(failed) if failed else 'all well'}")
    return 1 if failed else 0


def _passes(name: str, command: list[str]) -> bool:
    started = time.monotonic()
    result = subprocess.run([BIN / command[0], *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    print(f"{'ok' if result.returncode == 0 else 'FAILED':<7} {name} ({time.monotonic() - started:.1f} s)")
    if result.returncode != 0:
        print(result.stdout + result.stderr)
    return result.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
