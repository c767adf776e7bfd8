"""What the chart's values do, and which are refused."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import Any

import pytest
import yaml

Helm = Callable[..., subprocess.CompletedProcess[str]]


def expressions(helm: Helm, *arguments: str) -> str:
    """Everything that the rendered policies compute, in one text."""
    rendered = helm(*arguments)
    assert rendered.returncode == 0, rendered.stderr
    policies: list[Any] = [thing for thing in yaml.safe_load_all(rendered.stdout) if thing and thing["kind"].endswith("Policy")]
    return "\n".join(
        item["expression"] for policy in policies for part in ("matchConditions", "validations") for item in policy["spec"].get(part, [])
    )


def test_the_controller_is_the_service_account_of_the_release(helm: Helm) -> None:
    text = expressions(helm, "--namespace", "queues", "--set", "serviceAccount=line")
    assert "'system:serviceaccount:queues:line'" in text
    assert "system:serviceaccount:gpu-queue:gpu-queue" not in text


def test_another_group_may_break_the_glass(helm: Helm) -> None:
    text = expressions(helm, "--set", "breakGlassGroup=oncall@example.com")
    assert "'oncall@example.com' in request.userInfo" in text
    assert "gpu-queue-break-glass" not in text


def test_claims_can_be_left_alone(helm: Helm) -> None:
    assert "resourceClaims" in expressions(helm)
    assert "resourceClaims" not in expressions(helm, "--set", "gateResourceClaims=false")


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("breakGlasGroup=oncall", "additional properties 'breakGlasGroup' not allowed"),
        ("breakGlassGroup=", "breakGlassGroup"),
        ("breakGlassGroup=a' || 'b", "breakGlassGroup"),
        ("gpuResources={gpu}", "gpuResources"),
    ],
)
def test_a_value_that_would_weaken_the_guards_by_mistake_is_refused(helm: Helm, setting: str, complaint: str) -> None:
    refused = helm("--set", setting)
    assert refused.returncode != 0
    assert complaint in refused.stderr


def test_a_cluster_without_admission_policies_that_mutate_is_refused(helm: Helm) -> None:
    refused = helm("--kube-version", "1.35.2")
    assert refused.returncode != 0
    assert "incompatible with Kubernetes" in refused.stderr


def test_gke_versions_are_understood(helm: Helm) -> None:
    assert helm("--kube-version", "v1.36.3-gke.1200").returncode == 0
