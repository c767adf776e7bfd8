"""A pod that Kubernetes' strictest standard lets in: nobody in particular, a root that cannot be written to, and /tmp."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def restricted_pod(name: str, namespace: str, image: str, *, node: Mapping[str, str] | None = None, **container: Any) -> dict[str, Any]:
    """Runs the image once, as whoever it says itself. `node` is what its node is chosen by; `container` goes into its one container."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": False,
            "nodeSelector": dict(node or {}),
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [
                {
                    "name": "it",
                    "image": image,
                    "imagePullPolicy": "IfNotPresent",
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
                    **container,
                }
            ],
            "volumes": [{"name": "tmp", "emptyDir": {}}],
        },
    }
