"""A step as the objects that it would write: by `helm template` and `kubectl kustomize`, so that what is shown is what is done."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from mlplatform.cluster.objects import Object, parsed, written
from mlplatform.cluster.programs import Programs
from mlplatform.plan.registry_rights import RegistryRights
from mlplatform.plan.steps import Chart, Manifests, RemoteChart, SecretObject, Secrets, Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Renderer:
    """Renders for one version of Kubernetes.

    Args:
        root: of the repository, with helm/ and k8s/.
        kubernetes: the version, as `1.36`.
        offline: fetch nothing: what would be fetched has no objects.
    """

    root: Path
    kubernetes: str
    offline: bool = False
    programs: Programs = field(default_factory=Programs)

    def objects(self, step: Step) -> list[Object] | None:
        """What the step writes; None where that is fetched, and we are offline.

        Raises:
            PlatformError: a chart refuses its values, or a release cannot be fetched.
        """
        if step.fetched and self.offline:
            return None
        match step.source:
            case Chart() as chart:
                return self.chart(chart)
            case RemoteChart() as remote:
                return self._template(remote.chart, remote, "--repo", remote.repository, "--version", remote.version)
            case Manifests() as manifests:
                return self._kustomized(manifests)
            case Secrets() as secrets:
                return [shape(each) for each in secrets.objects] if secrets.made_here else []
            case RegistryRights():
                return []  # nothing of the cluster's

    def chart(self, chart: Chart) -> list[Object]:
        """A chart of ours with its own kinds."""
        return [*self.kinds(chart), *self.templates(chart)]

    def templates(self, chart: Chart) -> list[Object]:
        """Without them: what helm itself writes."""
        return self._template(str(self.root / chart.path), chart)

    def kinds(self, chart: Chart) -> list[Object]:
        """What lies in the chart's crds/, which Helm installs once and never upgrades, so that we apply it."""
        return [
            thing for file in sorted((self.root / chart.path / "crds").glob("*.yaml")) for thing in parsed(file.read_text(encoding="utf-8"))
        ]

    def version(self, chart: Chart | RemoteChart) -> str:
        """With its name, as helm tells that of a release: `mlflow-0.3.0`."""
        if isinstance(chart, RemoteChart):
            return f"{chart.chart}-{chart.version}"
        told = yaml.safe_load((self.root / chart.path / "Chart.yaml").read_text(encoding="utf-8"))
        return f"{told['name']}-{told['version']}"

    def _template(self, chart: str, release: Chart | RemoteChart, *more: str) -> list[Object]:
        told = written([release.values])
        arguments = ["template", release.release, chart, "--namespace", release.namespace, "--kube-version", self.kubernetes]
        return parsed(self.programs.helm(*arguments, "--no-hooks", "--skip-tests", "--values", "-", *more, text=told).stdout)

    def _kustomized(self, manifests: Manifests) -> list[Object]:
        with tempfile.TemporaryDirectory(prefix="millrace-") as folder:
            overlay = Path(folder) / "overlay"
            overlay.mkdir()
            told = {
                "apiVersion": "kustomize.config.k8s.io/v1beta1",
                "kind": "Kustomization",
                "resources": [os.path.relpath(self.root / manifests.path, overlay.resolve())],
                "patches": [
                    {"target": {"kind": "ConfigMap", "name": name}, "patch": json.dumps(_settings(name, data))}
                    for name, data in manifests.settings.items()
                ],
            }
            (overlay / "kustomization.yaml").write_text(yaml.safe_dump(told), encoding="utf-8")
            return parsed(self.programs.kubectl("kustomize", str(overlay), seconds=900).stdout)


def shape(secret: SecretObject, values: Mapping[str, str] | None = None) -> Object:
    """The Secret, with what stands for each credential in `values`; without them its texts as they are planned."""
    data = dict(secret.data)
    for variable, value in (values or {}).items():
        data = {key: text.replace(f"{{{{ .{variable} }}}}", value) for key, text in data.items()}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": secret.name, "namespace": secret.namespace},
        "type": "Opaque",
        "stringData": data,
    }


def rendered(renderer: Renderer, steps: tuple[Step, ...]) -> Iterator[tuple[Step, list[Object] | None]]:
    """Every step with its objects."""
    for step in steps:
        yield step, renderer.objects(step)


def _settings(name: str, data: Mapping[str, str]) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": dict(data)}
