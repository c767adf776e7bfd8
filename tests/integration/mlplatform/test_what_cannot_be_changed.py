"""What cannot be changed in place is refused by a dry run, so that it is known before the first write: held for each kind of it, on a real API server."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

import binaries
from control_plane import ControlPlane
from mlplatform.cluster.kubectl import Cluster
from mlplatform.cluster.objects import Name
from mlplatform.cluster.programs import PlatformFailure, Programs

LABELS = {"app": "it"}
POD: Any = {"metadata": {"labels": LABELS}, "spec": {"containers": [{"name": "c", "image": "x"}]}}
CLAIM = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "2Gi"}}}


def thing(api: str, kind: str, spec: Any, name: str = "it", namespace: str = "default") -> Any:
    about = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": api, "kind": kind, "metadata": about, "spec": spec}


def kind_of_two_versions() -> Any:
    """A kind whose objects are stored as v1, and are served as v2, too."""
    schema = {"openAPIV3Schema": {"type": "object"}}
    versions = [{"name": name, "served": True, "storage": name == "v1", "schema": schema} for name in ("v1", "v2")]
    names = {"kind": "Ledger", "plural": "ledgers"}
    spec = {"group": "tests.example.com", "scope": "Namespaced", "names": names, "versions": versions}
    return thing("apiextensions.k8s.io/v1", "CustomResourceDefinition", spec, "ledgers.tests.example.com", "")


def grow(found: Any) -> None:
    found["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"] = "4Gi"


def select_otherwise(found: Any) -> None:
    found["spec"]["selector"]["matchLabels"] = found["spec"]["template"]["metadata"]["labels"] = {"app": "other"}


def run_another_image(found: Any) -> None:
    found["spec"]["template"]["spec"]["containers"][0]["image"] = "y"


def drop_the_stored_version(found: Any) -> None:
    found["spec"]["versions"] = [{**found["spec"]["versions"][1], "storage": True}]


def move_to_another_class(found: Any) -> None:
    found["spec"]["storageClassName"] = "faster"


CASES: dict[str, tuple[Any, Callable[[Any], None], str]] = {
    "the claims of a StatefulSet": (
        thing(
            "apps/v1",
            "StatefulSet",
            {
                "serviceName": "it",
                "selector": {"matchLabels": LABELS},
                "template": POD,
                "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": CLAIM}],
            },
        ),
        grow,
        "updates to statefulset spec",
    ),
    "the selector of a Deployment": (
        thing("apps/v1", "Deployment", {"selector": {"matchLabels": LABELS}, "template": POD}),
        select_otherwise,
        "field is immutable",
    ),
    "the template of a Job": (
        thing("batch/v1", "Job", {"template": {"spec": {**POD["spec"], "restartPolicy": "Never"}}}),
        run_another_image,
        "field is immutable",
    ),
    "the class of a claim": (
        thing("v1", "PersistentVolumeClaim", {**CLAIM, "storageClassName": "slow"}),
        move_to_another_class,
        "spec is immutable after creation",
    ),
    "a version in which objects are stored": (kind_of_two_versions(), drop_the_stored_version, "status.storedVersions"),
}


@pytest.fixture
def cluster(bare_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    monkeypatch.setenv("KUBECTL", str(binaries.paths(["kubectl"])["kubectl"]))
    return Cluster(programs=Programs(kubeconfig=str(bare_plane.kubeconfig)))


@pytest.mark.parametrize("case", CASES)
def test_a_dry_run_refuses_it_and_nothing_is_written(cluster: Cluster, case: str) -> None:
    before, change, words = CASES[case]
    cluster.apply([before])
    there = cluster.get(Name.of(before))
    after = copy.deepcopy(before)
    change(after)
    with pytest.raises(PlatformFailure, match="The API server refuses it") as refusal:
        cluster.change([after])
    assert words in refusal.value.said
    assert "docs/platform.md" in str(refusal.value)
    assert cluster.get(Name.of(before)) == there
