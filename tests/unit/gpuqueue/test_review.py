"""What the webhook answers about a pod; which pods it is asked about is tried on a real API server (integration/gpuqueue/test_gate.py)."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
import pytest

from gpuqueue import labels
from gpuqueue.webhook.review import answer

GATE = {"name": labels.GATE}


def patch_of(pod: dict[str, Any]) -> Any:
    response = json.loads(answer(json.dumps({"request": {"uid": "4711", "object": pod}}).encode()))["response"]
    assert (response["uid"], response["allowed"]) == ("4711", True)
    return json.loads(base64.b64decode(response["patch"])) if "patch" in response else []


def test_a_bare_pod_gets_both() -> None:
    assert patch_of({"metadata": {}, "spec": {}}) == [
        {"op": "add", "path": "/metadata/labels", "value": {labels.MANAGED: "true"}},
        {"op": "add", "path": "/spec/schedulingGates", "value": [GATE]},
    ]


def test_what_a_pod_brings_along_stays() -> None:
    pod = {"metadata": {"labels": {"app": "x"}}, "spec": {"schedulingGates": [{"name": "example.com/data"}]}}
    assert patch_of(pod) == [
        {"op": "add", "path": "/metadata/labels/gpu-queue.dev~1managed", "value": "true"},
        {"op": "add", "path": "/spec/schedulingGates/-", "value": GATE},
    ]


def test_asked_again_it_has_nothing_to_add() -> None:
    assert patch_of({"metadata": {"labels": {labels.MANAGED: "true"}}, "spec": {"schedulingGates": [GATE]}}) == []


def test_what_is_no_review_is_not_answered() -> None:
    with pytest.raises(msgspec.MsgspecError):
        answer(b"{}")
