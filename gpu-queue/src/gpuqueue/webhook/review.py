"""What the webhook answers: the same gate and label that the admission policy sets (helm/gpu-queue/templates/gate.yaml).

Which pods are asked about is the API server's to decide, by the conditions that the chart gives it; whoever is asked about is queued.
JSON Patch has no "merge", so the operations depend on what the pod brings along, and on nothing else.
"""

from __future__ import annotations

import base64
from typing import Any

import msgspec

from gpuqueue import labels

_ESCAPED = labels.MANAGED.replace("~", "~0").replace("/", "~1")


class _Gate(msgspec.Struct):
    name: str = ""


class _Meta(msgspec.Struct):
    labels: dict[str, str] | None = None


class _Spec(msgspec.Struct, rename="camel"):
    scheduling_gates: list[_Gate] | None = None


class Pod(msgspec.Struct):
    """The part of a pod that matters here."""

    metadata: _Meta = msgspec.field(default_factory=_Meta)
    spec: _Spec = msgspec.field(default_factory=_Spec)


class _Request(msgspec.Struct):
    uid: str
    object: Pod


class _Review(msgspec.Struct):
    request: _Request


_REVIEW = msgspec.json.Decoder(_Review)


def answer(text: bytes) -> bytes:
    """The AdmissionReview that answers the one in `text`.

    Raises:
        msgspec.MsgspecError: `text` is no review of a pod.
    """
    request = _REVIEW.decode(text).request
    response: dict[str, Any] = {"uid": request.uid, "allowed": True}
    patch = patch_for(request.object)
    if patch:
        response |= {"patchType": "JSONPatch", "patch": base64.b64encode(msgspec.json.encode(patch)).decode()}
    return msgspec.json.encode({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})


def patch_for(pod: Pod) -> list[dict[str, Any]]:
    """What puts gate and label on the pod; nothing if it has both."""
    return [*_label(pod.metadata.labels), *_gate(pod.spec.scheduling_gates)]


def _label(present: dict[str, str] | None) -> list[dict[str, Any]]:
    if present is None:
        return [{"op": "add", "path": "/metadata/labels", "value": {labels.MANAGED: "true"}}]
    if present.get(labels.MANAGED) == "true":
        return []
    return [{"op": "add", "path": f"/metadata/labels/{_ESCAPED}", "value": "true"}]


def _gate(present: list[_Gate] | None) -> list[dict[str, Any]]:
    ours = {"name": labels.GATE}
    if not present:
        return [{"op": "add", "path": "/spec/schedulingGates", "value": [ours]}]
    if any(gate.name == labels.GATE for gate in present):
        return []
    return [{"op": "add", "path": "/spec/schedulingGates/-", "value": ours}]
