"""What of a platform an API server holds: everything, everything that was written, and what an upgrade may not touch."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Mapping
from typing import Any

from api_client import Refused
from control_plane import ControlPlane

Key = tuple[str, str, str]
"""The path of the kind, the namespace, the name."""
OWN = {"default", "kube-system", "kube-public", "kube-node-lease"}
"""Namespaces that the cluster fills by itself."""
PODS = "/api/v1/pods"
WORKLOADS = ("/apis/apps/v1/deployments", "/apis/apps/v1/statefulsets")
KINDS = [
    "/api/v1/namespaces",
    "/api/v1/configmaps",
    "/api/v1/secrets",
    "/api/v1/serviceaccounts",
    "/api/v1/services",
    "/api/v1/persistentvolumeclaims",
    "/api/v1/limitranges",
    "/api/v1/resourcequotas",
    *WORKLOADS,
    "/apis/batch/v1/cronjobs",
    "/apis/networking.k8s.io/v1/networkpolicies",
    "/apis/policy/v1/poddisruptionbudgets",
    "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    "/apis/rbac.authorization.k8s.io/v1/roles",
    "/apis/rbac.authorization.k8s.io/v1/rolebindings",
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
    "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies",
    "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicies",
    "/apis/gpu-queue.dev/v1/gpuqueues",
]
_PASSING = {"resourceVersion", "managedFields", "generation", "uid", "creationTimestamp"}


def things(plane: ControlPlane) -> dict[Key, Any]:
    """What is there, without what time alone changes."""
    found = {}
    for kind in KINDS:
        with contextlib.suppress(Refused):  # a kind that is not there has no objects
            for thing in plane.client.request("GET", kind)["items"]:
                about = thing["metadata"]
                if about.get("namespace", "") in OWN or about["name"] in OWN or "kubernetes.io/bootstrapping" in about.get("labels", {}):
                    continue
                found[kind, about.get("namespace", ""), about["name"]] = thing
    return found


def written(plane: ControlPlane) -> dict[Key, Any]:
    """What was written of each: its spec, data, rules, labels."""
    return {
        name: {k: ({a: b for a, b in v.items() if a not in _PASSING} if k == "metadata" else v) for k, v in thing.items() if k != "status"}
        for name, thing in things(plane).items()
    }


def but_for_releases(found: dict[Key, Any]) -> dict[Key, Any]:
    """Without helm's own records, of which every upgrade makes one more."""
    return {name: thing for name, thing in found.items() if not name[2].startswith("sh.helm.release")}


def identities(plane: ControlPlane) -> dict[Key, str]:
    """Of all that is there, the uid: another one means that it was deleted and made anew."""
    return {name: thing["metadata"]["uid"] for name, thing in but_for_releases(things(plane)).items()}


def passwords(plane: ControlPlane, credentials: Mapping[str, str]) -> set[tuple[Key, str, str]]:
    """Which credential stands in which key of which Secret; of Secrets that hold none, the whole text."""
    found = set()
    for name, thing in but_for_releases(things(plane)).items():
        if name[0] == "/api/v1/secrets":
            for key, encoded in thing.get("data", {}).items():
                text = base64.b64decode(encoded).decode()
                found |= {(name, key, each) for each, value in credentials.items() if value in text} or {(name, key, text)}
    return found


def precious(plane: ControlPlane) -> dict[Key, Any]:
    """What else an upgrade may not touch: where requests are led, which pods a controller takes for its own, volumes, the ledgers of GPUs."""
    found: dict[Key, Any] = {}
    for name, thing in but_for_releases(things(plane)).items():
        spec = thing.get("spec", {})
        match name[0]:
            case "/api/v1/persistentvolumeclaims":
                found[name] = (spec["resources"], spec["accessModes"], spec.get("volumeName"))
            case "/api/v1/services":
                found[name] = (spec.get("clusterIP"), spec.get("selector"))
            case "/apis/gpu-queue.dev/v1/gpuqueues":
                found[name] = (spec, thing.get("status", {}).get("grants"))
            case kind if kind in WORKLOADS:
                claims = [(claim["metadata"]["name"], claim["spec"]["resources"]) for claim in spec.get("volumeClaimTemplates", [])]
                found[name] = (spec["selector"], claims)
    return found
