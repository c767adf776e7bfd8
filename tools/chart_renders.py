"""`make golden`: what charts render for a few sets of values, whole, to be read as a diff in review.

Each `tests/golden/CHART/NAME.values.yaml` has its `NAME.yaml`. A test holds them, and that between them every value is set once.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import binaries

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "helm" / "model-serving"
GOLDEN = ROOT / "tests" / "golden"
RELEASES = {"model-serving": ("cards", "fraud"), "retraining": ("retraining", "ml")}
"""By chart: the release's name and its namespace."""
LEFT_OUT = "dashboard.yaml"
"""It is a file of the chart as it stands, and long."""


def cases(chart: str = "model-serving") -> dict[str, Path]:
    """The sets of values by name."""
    return {path.name.removesuffix(".values.yaml"): path for path in sorted((GOLDEN / chart).glob("*.values.yaml"))}


def render(values: Path) -> str:
    """What the chart of their folder makes of them, hooks included, for the Kubernetes that is pinned.

    Raises:
        subprocess.CalledProcessError: the chart refuses them.
    """
    chart, (name, namespace) = values.parent.name, RELEASES[values.parent.name]
    program, version = binaries.paths(["helm"])["helm"], binaries.pinned("kubernetes", "k8s.io/kubernetes")
    command: list[str | Path] = [program, "template", name, ROOT / "helm" / chart, "--namespace", namespace, "--values", values]
    command += ["--kube-version", version]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return "".join(f"---\n{part}" for part in text.split("---\n") if part.strip() and f"templates/{LEFT_OUT}" not in part)


def main() -> int:
    """Write them all."""
    for chart in RELEASES:
        for name, values in cases(chart).items():
            (GOLDEN / chart / f"{name}.yaml").write_text(render(values), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
