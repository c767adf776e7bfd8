"""`make golden`: what `helm/model-serving` renders for a few sets of values, whole, to be read as a diff in review.

Each `tests/golden/model-serving/NAME.values.yaml` has its `NAME.yaml`. A test holds them, and that between them every value is set once.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import binaries

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "helm" / "model-serving"
GOLDEN = ROOT / "tests" / "golden" / "model-serving"
LEFT_OUT = "dashboard.yaml"
"""It is a file of the chart as it stands, and long."""


def cases() -> dict[str, Path]:
    """The sets of values by name."""
    return {path.name.removesuffix(".values.yaml"): path for path in sorted(GOLDEN.glob("*.values.yaml"))}


def render(values: Path) -> str:
    """What the chart makes of them, hooks included, for the Kubernetes that is pinned.

    Raises:
        subprocess.CalledProcessError: the chart refuses them.
    """
    program, version = binaries.paths(["helm"])["helm"], binaries.pinned("kubernetes", "k8s.io/kubernetes")
    command: list[str | Path] = [program, "template", "cards", CHART, "--namespace", "fraud", "--kube-version", version, "--values", values]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return "".join(f"---\n{part}" for part in text.split("---\n") if part.strip() and f"templates/{LEFT_OUT}" not in part)


def main() -> int:
    """Write them all."""
    for name, values in cases().items():
        (GOLDEN / f"{name}.yaml").write_text(render(values), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
