"""Which driver, which counts, which log: from a command's options to the room that actions work in."""

from __future__ import annotations

import getpass
import json
import os
from dataclasses import dataclass
from pathlib import Path

from mlserving import database
from mlserving.audit.database import AuditLog
from mlserving.rollout.actions import Room
from mlserving.rollout.aliases import Registry
from mlserving.rollout.helm import HelmDriver
from mlserving.rollout.local import LocalDriver, admin_address
from mlserving.rollout.observe import Gateways, Prometheus
from mlserving.workspace import registry_uri, serving_folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Where a release is and who knows what its gateways count."""

    release: str
    namespace: str
    prometheus: str
    chart: str = ""
    """Empty: the one that is installed."""
    by_namespace: bool = True
    """Whether Prometheus' series carry the namespace, as an operator's do."""


def local_room(workspace: Path, who: str) -> Room:
    """One machine: `millrace serve --tracks` on this workspace."""
    return Room(
        driver=LocalDriver(workspace),
        source=Gateways(admin_address(serving_folder(workspace))),
        registry=Registry(registry_uri(workspace)),
        audit=audit_log(workspace),
        who=who,
    )


def cluster_room(workspace: Path, who: str, place: Cluster, *, anchored: bool = True) -> Room:
    """A cluster: a helm release, and the Prometheus that scrapes its gateways. `anchored`: what is logged is remembered in the workspace, too."""
    return Room(
        driver=HelmDriver(release=place.release, namespace=place.namespace, chart=place.chart),
        source=Prometheus(place.prometheus, f"namespace={json.dumps(place.namespace)}" if place.by_namespace else ""),
        registry=Registry(registry_uri(workspace)),
        audit=audit_log(workspace) if anchored else AuditLog(database.address(workspace)),
        who=who,
        load_seconds=900.0,
    )


def audit_log(workspace: Path) -> AuditLog:
    """The workspace's log, or that of the database which MILLRACE_DATABASE names; anchors lie in the workspace."""
    return AuditLog(database.address(workspace), serving_folder(workspace) / "audit.anchors")


def whoever() -> str:
    """Who acts: MILLRACE_USER, else the account. A name that is told, not one that is proved; see docs/rollouts.md."""
    return os.environ.get("MILLRACE_USER") or getpass.getuser()
