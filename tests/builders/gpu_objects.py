"""Kubernetes objects around the GPU queue, as people and controllers write them, and who asks for them."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from api_client import Client, Person, Refused
from gpuqueue import labels

RELEASE_NAMESPACE = "gpu-queue"
CONTROLLER = Person(user=f"system:serviceaccount:{RELEASE_NAMESPACE}:gpu-queue")
ADMIN = Person(user="alice", groups=("system:masters",))
GLASS_BREAKER = Person(user="oncall", groups=("system:masters", "gpu-queue-break-glass"))

Object = dict[str, Any]


def pod(name: str = "trainer", *, gpus: int = 0, resource: str = "nvidia.com/gpu", **spec: Any) -> Object:
    """A pod with one container that asks for `gpus`, or a CPU pod; `spec` adds to its spec."""
    limits = {"cpu": "1", **({resource: str(gpus)} if gpus else {})}
    container = {"name": "main", "image": "trainer:v1", "resources": {"limits": limits}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [container]} | spec}


def argo_pod(name: str = "train-transactions-4711") -> Object:
    """What Argo creates for a Kubeflow step with `set_accelerator_type`: an init container, its `wait` beside `main`, an owner."""
    executor = {"image": "argoexec:v3", "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": {"workflows.argoproj.io/workflow": "train-transactions", "workflows.argoproj.io/completed": "false"},
            "annotations": {"workflows.argoproj.io/node-name": "train-transactions.root.train"},
            "ownerReferences": [
                {
                    "apiVersion": "argoproj.io/v1alpha1",
                    "kind": "Workflow",
                    "name": "train-transactions",
                    "uid": "5b1d6f0e-6c0f-4a53-8f3e-0d6a2b7b4c11",
                    "controller": True,
                    "blockOwnerDeletion": False,
                }
            ],
        },
        "spec": {
            "restartPolicy": "Never",
            "initContainers": [{"name": "init", **executor}],
            "containers": [
                {"name": "wait", **executor},
                {"name": "main", "image": "steps:v1", "resources": {"limits": {"nvidia.com/gpu": "1", "memory": "8Gi"}}},
            ],
            "nodeSelector": {"cloud.google.com/gke-accelerator": "nvidia-l4"},
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
            "volumes": [{"name": "var-run-argo", "emptyDir": {}}],
        },
    }


def namespace(name: str, *, managed: bool = True) -> Object:
    """A namespace, opted in or not."""
    marks = {labels.MANAGED: "true"} if managed else {}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": marks}}


def lane(name: str = "l4", *, quota: int = 8, **fields: Any) -> Object:
    """One lane; nodes are matched by its name."""
    return {"name": name, "match": {"cloud.google.com/gke-accelerator": f"nvidia-{name}"}, "quota": quota, **fields}


def queue(name: str, *, namespaces: list[str] | None = None, lanes: list[Object] | None = None, **spec: Any) -> Object:
    """A GpuQueue with one lane of eight GPUs; `spec` adds to its spec."""
    return {
        "apiVersion": f"{labels.DOMAIN}/v1",
        "kind": "GpuQueue",
        "metadata": {"name": name},
        "spec": {"namespaces": [name] if namespaces is None else namespaces, "lanes": [lane()] if lanes is None else lanes, **spec},
    }


def grant(namespace: str, *, uid: str = "9f0c", gpus: int = 1) -> Object:
    """An entry of the ledger."""
    return {"uid": uid, "name": "trainer", "namespace": namespace, "kind": "Pod", "gpus": gpus, "lane": "l4", "at": "2026-11-21T12:00:00Z"}


def job(
    name: str,
    namespace: str,
    *,
    parallelism: int,
    gpus: int,
    completions: int | None = None,
    ends_after: str | None = None,
    owner: Object | None = None,
) -> Object:
    """A Job whose pods ask for L4s."""
    template = pod(name, gpus=gpus, restartPolicy="Never", nodeSelector={"cloud.google.com/gke-accelerator": "nvidia-l4"})
    notes = {"test.millrace/succeeds-after": ends_after} if ends_after else {}
    spec: Object = {"parallelism": parallelism, "template": {"metadata": {"annotations": notes}, "spec": template["spec"]}}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": namespace, **({"ownerReferences": [owner]} if owner else {})},
        "spec": spec | ({"completions": completions} if completions else {"completions": parallelism}),
    }


JOBSET_KIND: Object = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {
        "name": "jobsets.jobset.x-k8s.io",
        "annotations": {"api-approved.kubernetes.io": "https://github.com/kubernetes-sigs/jobset"},
    },
    "spec": {
        "group": "jobset.x-k8s.io",
        "scope": "Namespaced",
        "names": {"kind": "JobSet", "plural": "jobsets", "singular": "jobset"},
        "versions": [
            {
                "name": "v1alpha2",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}
"""JobSets, as far as the queue reads them; their controller is played by whoever tests."""


def jobset(name: str, namespace: str, *, replicas: int, parallelism: int) -> Object:
    """A JobSet of a driver without GPUs and `replicas` Jobs of `parallelism` one-GPU pods each."""
    driver, workers = (job(part, namespace, parallelism=count, gpus=gpus) for part, count, gpus in (("d", 1, 0), ("w", parallelism, 1)))
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "replicatedJobs": [
                {"name": "driver", "replicas": 1, "template": {"spec": driver["spec"]}},
                {"name": "workers", "replicas": replicas, "template": {"spec": workers["spec"]}},
            ]
        },
    }


def owned_by(owner: Object) -> Object:
    """A reference to whoever controls something."""
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
    }


def resource_quota(namespace: str, *, gpus: int) -> Object:
    """Kubernetes' own quota of GPUs."""
    return {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "gpus", "namespace": namespace},
        "spec": {"hard": {"requests.nvidia.com/gpu": str(gpus)}},
    }


def refusing_policy(name: str, namespace: str, word: str) -> list[Object]:
    """Somebody else's policy: pods of a namespace whose node selector says `word` stay as they are."""
    return [
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": name},
            "spec": {
                "matchConstraints": {
                    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
                    "resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["pods"]}],
                },
                "matchConditions": [{"name": "frozen", "expression": f"object.spec.?nodeSelector['test'].orValue('') == '{word}'"}],
                "validations": [{"expression": "false", "message": "nothing of this team changes"}],
            },
        },
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": name},
            "spec": {"policyName": name, "validationActions": ["Deny"]},
        },
    ]


def refuses(api: Client, namespace: str, word: str = "frozen") -> bool:
    """Whether such a policy is in force, found out with a CPU pod."""
    path = f"/api/v1/namespaces/{namespace}/pods/probe"
    try:
        api.request("GET", path)
    except Refused:
        api.request("POST", f"/api/v1/namespaces/{namespace}/pods", pod("probe", nodeSelector={"test": word}))
    try:
        api.request("PATCH", f"{path}?dryRun=All", {"metadata": {"labels": {"touched": "true"}}})
    except Refused:
        return True
    return False


def inline(file: Path) -> str:
    """A file's content, as fields for certificates want it."""
    return base64.b64encode(file.read_bytes()).decode()


def moment(text: str) -> float:
    """What the API writes as a time, in seconds since the epoch."""
    return datetime.fromisoformat(text).timestamp()


def this_month() -> str:
    """As a budget names it."""
    return f"{datetime.now(UTC):%Y-%m}"


def group(name: str, size: int) -> dict[str, str]:
    """Annotations of pods that start together."""
    return {labels.GROUP: name, labels.GROUP_SIZE: str(size)}


def may(
    user: str, resource: str, *, group: str = "", namespace: str = "", verbs: tuple[str, ...] = ("get", "list"), names: tuple[str, ...] = ()
) -> list[Object]:
    """The role and the binding that let somebody do this, in one namespace or in all, with all of these objects or the named ones."""
    kind, name = ("Role" if namespace else "ClusterRole"), f"{user.replace(':', '-')}-{resource}"
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    version = "rbac.authorization.k8s.io/v1"
    reference = {"apiGroup": "rbac.authorization.k8s.io"}
    return [
        {
            "apiVersion": version,
            "kind": kind,
            "metadata": metadata,
            "rules": [{"apiGroups": [group], "resources": [resource], "verbs": list(verbs), "resourceNames": list(names)}],
        },
        {
            "apiVersion": version,
            "kind": f"{kind}Binding",
            "metadata": metadata,
            "roleRef": reference | {"kind": kind, "name": name},
            "subjects": [reference | {"kind": "User", "name": user}],
        },
    ]


def in_namespace(namespace: str, thing: Object) -> Object:
    """The same object, with its namespace."""
    return thing | {"metadata": thing["metadata"] | {"namespace": namespace}}


def deadline_job(namespace: str, *, gpus: int) -> Object:
    """A Job that Kubernetes ends an hour after it was made."""
    made = job("train", namespace, parallelism=1, gpus=gpus)
    return made | {"spec": made["spec"] | {"activeDeadlineSeconds": 3600, "suspend": True}}
