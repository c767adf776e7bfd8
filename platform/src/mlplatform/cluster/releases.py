"""Releases of helm: what they are in, what would change, and how one that stopped in the middle is mended."""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from mlplatform.cluster.kubectl import ENVIRONMENT, STEP, Cluster
from mlplatform.cluster.objects import Name, parsed, written
from mlplatform.plan.steps import Chart, RemoteChart

HELM = "helm"
"""Helm's own field manager: what it would change is asked in its name."""
UNFINISHED = ("pending-install", "pending-upgrade", "pending-rollback")


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """One that is there."""

    name: str
    namespace: str
    revision: int
    status: str
    updated: datetime
    chart: str = ""
    """With its version: `mlflow-0.3.0`."""

    @property
    def unfinished(self) -> bool:
        """Whether an operation on it has begun and not ended."""
        return self.status in UNFINISHED


@dataclass(frozen=True, slots=True, kw_only=True)
class Releases:
    """Of one environment."""

    cluster: Cluster
    environment: str
    root: Path

    def find(self, chart: Chart | RemoteChart) -> Release | None:
        """The release of that chart."""
        return next((release for release in self.all(chart.namespace) if release.name == chart.release), None)

    def all(self, namespace: str = "", *, ours: bool = False) -> list[Release]:
        """Those of a namespace, or everywhere; `ours`: that carry our label."""
        place = ["--namespace", namespace] if namespace else ["--all-namespaces"]
        chosen = ["--selector", f"{ENVIRONMENT}={self.environment}"] if ours else []
        # Every state has to be asked for: by default, helm leaves out what is pending.
        states = ["--deployed", "--failed", "--pending", "--uninstalling", "--superseded"]
        said = self.cluster.programs.helm("list", *place, *chosen, *states, "--max", "0", "--output", "json").stdout
        return [_release(each) for each in json.loads(said or "[]")]

    def objects(self, release: Release) -> list[Name]:
        """What it wrote last."""
        said = self.cluster.programs.helm("get", "manifest", release.name, "--namespace", release.namespace).stdout
        return [Name.of(thing) for thing in parsed(said)]

    def kept(self, chart: Chart) -> Chart:
        """The chart with what its release, which is there, has decided by itself, such as a rollout's version and weights."""
        if not chart.kept:
            return chart
        said = self.cluster.programs.helm("get", "values", chart.release, "--namespace", chart.namespace, "--output", "json").stdout
        values = laid_over(chart.values, json.loads(said) or {}, chart.kept)
        return Chart(path=chart.path, release=chart.release, namespace=chart.namespace, values=values, kept=chart.kept)

    def forget_unfinished(self, release: Release) -> None:
        """Take away the record of an operation that never ended. What it wrote stays, and the next upgrade goes over it."""
        record = Name(api="v1", kind="Secret", namespace=release.namespace, name=f"sh.helm.release.v1.{release.name}.v{release.revision}")
        self.cluster.delete(record)

    def upgrade(self, chart: Chart | RemoteChart, *, step: str, seconds: int) -> None:
        """Install or upgrade; returns when everything is written, not when it is ready.

        The namespace is there: with --create-namespace helm would write it over, and take our labels off.
        """
        marks = f"{ENVIRONMENT}={self.environment},{STEP}={step}"
        source = (
            [str(self.root / chart.path)]
            if isinstance(chart, Chart)
            else [chart.chart, "--repo", chart.repository, "--version", chart.version]
        )
        with tempfile.NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as file:
            file.write(written([chart.values]))
            file.flush()
            self.cluster.programs.helm(
                "upgrade", chart.release, *source, "--install", "--namespace", chart.namespace, "--values", file.name,
                "--reset-values", "--labels", marks, "--server-side=true", "--force-conflicts", "--take-ownership", "--history-max", "10",
                *(["--skip-crds"] if isinstance(chart, Chart) else []), "--timeout", f"{seconds}s", seconds=seconds + 60,
            )  # fmt: skip

    def uninstall(self, release: Release, *, seconds: int = 300) -> None:
        """Remove it, but for what it says is kept. Hooks are left out: what they ask, a caller has asked."""
        self.cluster.programs.helm(
            "uninstall", release.name, "--namespace", release.namespace, "--ignore-not-found", "--no-hooks", "--wait",
            "--timeout", f"{seconds}s", seconds=seconds + 60,
        )  # fmt: skip


def laid_over(values: Mapping[str, Any], there: Mapping[str, Any], paths: Iterable[str]) -> dict[str, Any]:
    """`values`, with those of `there` at `paths`, if a rollout has ever written any."""
    found = copy.deepcopy(dict(values))
    if not there.get("rollout"):
        return found
    for path in paths:
        *parents, last = path.split(".")
        source: Any = there
        for parent in parents:
            source = source.get(parent, {}) if isinstance(source, dict) else {}
        if last in source:
            target = found
            for parent in parents:
                target = target.setdefault(parent, {})
            target[last] = source[last]
    return found


def _release(said: Mapping[str, Any]) -> Release:
    # helm writes 2026-11-29 03:43:12.123456789 +0000 UTC
    day, clock, zone = str(said["updated"]).split()[:3]
    updated = datetime.strptime(f"{day} {clock.partition('.')[0]} {zone}", "%Y-%m-%d %H:%M:%S %z")
    return Release(
        name=said["name"],
        namespace=said["namespace"],
        revision=int(said["revision"]),
        status=said["status"],
        updated=updated,
        chart=str(said.get("chart", "")),
    )
