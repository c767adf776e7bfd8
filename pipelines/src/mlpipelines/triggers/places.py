"""Where models are served that the trigger rolls out: this workspace's tracks, or the helm releases that `--rollouts FILE` names.

    prometheus: http://prometheus.monitoring:9090     # who scrapes the gateways
    releases:
      transactions: {release: transactions, namespace: serving}

The file is read anew for each rollout, so a model is added without a restart. `helm/retraining` writes it from its values (`rollouts`).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from pydantic import Field

from mlpipelines.errors import ConfigError
from mlserving.rollout.actions import Room
from mlserving.rollout.wiring import Cluster, cluster_room, local_room
from mlserving.settings_file import SettingsFile, Strict

_NEEDED = ("mlflow", "scipy")


class Release(Strict):
    """A helm release of `helm/model-serving`."""

    release: str
    namespace: str = "default"


class Places(Strict):
    """The whole file."""

    prometheus: str
    chart: str = ""
    """A folder, an archive or an oci:// address. Empty: the chart that is installed, as helm keeps it in its record of the release."""
    by_namespace: bool = True
    """Whether Prometheus' series carry the namespace, as an operator's do."""
    releases: dict[str, Release] = Field(default_factory=dict)
    """By model."""

    def of(self, model: str) -> Cluster:
        """Where a model is served.

        Raises:
            ConfigError: the file does not say.
        """
        found = self.releases.get(model)
        if found is None:
            known = ", ".join(self.releases) or "none"
            raise ConfigError(f"The file of --rollouts names no release that serves {model!r}, only: {known}. Add it to `releases`.")
        return Cluster(
            release=found.release,
            namespace=found.namespace,
            chart=self.chart,
            prometheus=self.prometheus,
            by_namespace=self.by_namespace,
        )


FILE = SettingsFile(Places, page="docs/retraining.md", remedy="It is named by --rollouts.")
"""The file of `--rollouts`."""


def tracks(workspace: Path, who: str) -> Callable[[str], Room]:
    """What a model's rollout is worked on with where `millrace serve --tracks` serves this workspace. `who` acts."""
    return lambda _model: local_room(workspace, who)


def nowhere(model: str) -> Room:
    """The same where nobody has said where models are served.

    Raises:
        ConfigError: always.
    """
    raise ConfigError(f"Nobody says which helm release serves {model!r}. Start the trigger with --rollouts FILE, or roll out by hand.")


def releases(workspace: Path, who: str, file: Path) -> Callable[[str], Room]:
    """The same for helm releases; `file` is that of `--rollouts`.

    Raises:
        ConfigError: it is wrong, or what rollouts need is not installed here.
    """
    FILE.read(file)  # what is wrong with it is told at the start
    if missing := [name for name in _NEEDED if find_spec(name) is None]:
        raise ConfigError(f"--rollouts needs {' and '.join(missing)}. Install mlpipelines[trigger].")
    anchored = _writable(workspace)

    def of_a_release(model: str) -> Room:
        return cluster_room(workspace, who, FILE.read(file).of(model), anchored=anchored)

    return of_a_release


def _writable(workspace: Path) -> bool:
    """Whether the audit log's anchors may go beside it: a pod mounts its workspace read-only, or has none."""
    return os.access(next(each for each in (workspace, *workspace.parents) if each.exists()), os.W_OK)
