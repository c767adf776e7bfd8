"""What the chart's values do, and which are refused."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

import binaries
from chart_values import CHARTS
from gpu_queue_values import Values
from gpuqueue.controller.settings import Settings, read

Helm = Callable[..., subprocess.CompletedProcess[str]]
CHART = CHARTS / "gpu-queue"


@pytest.fixture
def helm_before_136(helm: Helm) -> Helm:
    """A cluster that does not have the kind of policy that sets the gate."""
    command = ["template", "gpu-queue", str(CHART), "--kube-version", "1.35.2"]
    program = str(binaries.paths(["helm"])["helm"])
    return lambda *arguments: subprocess.run([program, *command, *arguments], capture_output=True, text=True, check=False)


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
        ("controller.settings.leaseSecond=9", "additional properties 'leaseSecond' not allowed"),
        ("controller.replicas=0", "controller/replicas"),
    ],
)
def test_a_value_that_would_weaken_the_guards_by_mistake_is_refused(helm: Helm, setting: str, complaint: str) -> None:
    refused = helm("--set", setting)
    assert refused.returncode != 0
    assert complaint in refused.stderr


@pytest.mark.parametrize(
    ("asked", "kind"),
    [("auto", "MutatingAdmissionPolicy"), ("policy", "MutatingAdmissionPolicy"), ("webhook", "MutatingWebhookConfiguration")],
)
def test_a_cluster_that_can_set_the_gate_itself_does_unless_told_otherwise(helm: Helm, asked: str, kind: str) -> None:
    assert gates(objects(helm, "--set", f"admission={asked}")) == {kind}


def test_a_cluster_that_cannot_gets_the_webhook(helm_before_136: Helm) -> None:
    assert gates(objects(helm_before_136)) == {"MutatingWebhookConfiguration"}


def gates(things: list[Any]) -> set[str]:
    return {thing["kind"] for thing in things if thing["metadata"]["name"] == "gpu-queue-gate"} & {
        "MutatingAdmissionPolicy",
        "MutatingWebhookConfiguration",
    }


def test_policy_and_webhook_look_at_the_same_pods(helm: Helm) -> None:
    policy = one(helm, "MutatingAdmissionPolicy", "gpu-queue-gate", "--set", "admission=policy")["spec"]
    webhook = one(helm, "MutatingWebhookConfiguration", "gpu-queue-gate", "--set", "admission=webhook")["webhooks"][0]
    assert webhook["matchConditions"] == policy["matchConditions"]
    assert webhook["namespaceSelector"] == policy["matchConstraints"]["namespaceSelector"]
    assert (webhook["failurePolicy"], webhook["reinvocationPolicy"]) == (policy["failurePolicy"], policy["reinvocationPolicy"])
    assert (webhook["timeoutSeconds"], webhook["sideEffects"]) == (3, "None")


def test_the_webhook_may_write_what_is_its_own_and_nothing_with_cert_manager(helm: Helm) -> None:
    def rights(*arguments: str) -> list[Any]:
        found = objects(helm, "--set", "admission=webhook", *arguments)
        mine = [thing for thing in found if thing["metadata"]["name"] == "gpu-queue-webhook" and thing["kind"] in {"Role", "ClusterRole"}]
        return [rule for role in mine for rule in role["rules"]]

    assert all(rule["resourceNames"] in (["gpu-queue-webhook"], ["gpu-queue-gate"]) for rule in rights())
    assert {verb for rule in rights() for verb in rule["verbs"]} == {"get", "patch"}
    assert {verb for rule in rights("--set", "webhook.certManager.enabled=true") for verb in rule["verbs"]} == {"get"}


def test_a_cluster_without_policies_that_guard_is_refused(helm: Helm) -> None:
    refused = helm("--kube-version", "1.29.4")
    assert refused.returncode != 0
    assert "incompatible with Kubernetes" in refused.stderr


def test_gke_versions_are_understood(helm: Helm) -> None:
    assert helm("--kube-version", "v1.36.3-gke.1200").returncode == 0


def objects(helm: Helm, *arguments: str) -> list[Any]:
    """Everything that the chart makes, hooks included."""
    rendered = helm(*arguments)
    assert rendered.returncode == 0, rendered.stderr
    return [thing for thing in yaml.safe_load_all(rendered.stdout) if thing]


def one(helm: Helm, kind: str, name: str, *arguments: str) -> Any:
    return next(thing for thing in objects(helm, *arguments) if (thing["kind"], thing["metadata"]["name"]) == (kind, name))


def pod_specs(helm: Helm) -> dict[str, Any]:
    """Every pod that the chart makes or has made, the webhook's included."""
    return {
        f"{thing['kind']} {thing['metadata']['name']}": thing["spec"] if thing["kind"] == "Pod" else thing["spec"]["template"]["spec"]
        for thing in objects(helm, "--set", "admission=webhook")
        if thing["kind"] in {"Pod", "Job", "Deployment"}
    }


def test_every_pod_of_ours_may_run_where_only_the_restricted_may(helm: Helm) -> None:
    specs = pod_specs(helm)
    assert len(specs) == 4
    for name, spec in specs.items():
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in spec["containers"]:
            own = container["securityContext"]
            assert (own["allowPrivilegeEscalation"], own["readOnlyRootFilesystem"]) == (False, True), name
            assert own["capabilities"] == {"drop": ["ALL"]}, name
            assert container["resources"]["limits"]["memory"], name


def test_other_settings_are_other_pods(helm: Helm) -> None:
    def marks(*arguments: str) -> Any:
        return one(helm, "Deployment", "gpu-queue", *arguments)["spec"]["template"]["metadata"]["annotations"]

    assert marks() == marks()
    assert marks() != marks("--set", "controller.settings.tellTop=7")


def test_the_settings_reach_the_file_that_the_controller_reads(helm: Helm, tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    arguments = ("--set", "controller.settings.leaseSeconds=15", "--set-json", 'controller.settings.prices={"l4": 0.6}')
    file.write_text(one(helm, "ConfigMap", "gpu-queue", *arguments)["data"]["settings.yaml"])
    assert read(file) == Settings(lease_seconds=15, prices={"l4": 0.6})


def test_an_image_by_digest_has_no_tag(helm: Helm) -> None:
    digest = "sha256:" + "a" * 64
    spec = one(helm, "Deployment", "gpu-queue", "--set", f"image.digest={digest}", "--set", "image.repository=example.com/gpu-queue")
    assert spec["spec"]["template"]["spec"]["containers"][0]["image"] == f"example.com/gpu-queue@{digest}"


def test_with_a_certificate_people_are_answered_by_tls_only(helm: Helm) -> None:
    arguments = ("--set", "controller.tls.secretName=page")
    spec = one(helm, "Deployment", "gpu-queue", *arguments)["spec"]["template"]["spec"]
    assert "--tls-certificate=/etc/gpu-queue-tls/tls.crt" in spec["containers"][0]["args"]
    assert {"name": "tls", "secret": {"secretName": "page"}} in spec["volumes"]
    assert one(helm, "Service", "gpu-queue", *arguments)["spec"]["ports"][0]["appProtocol"] == "https"


def test_metrics_are_for_those_who_are_named_and_the_page_for_all(helm: Helm) -> None:
    rules = one(helm, "NetworkPolicy", "gpu-queue")["spec"]["ingress"]
    by_port = {rule["ports"][0]["port"]: rule.get("from") for rule in rules}
    assert by_port["api"] is None
    assert by_port["metrics"] == [
        {
            "namespaceSelector": {
                "matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["monitoring", "gmp-system"]}]
            }
        }
    ]
    nobody = one(helm, "NetworkPolicy", "gpu-queue", "--set-json", "networkPolicy.metricsFrom=[]")["spec"]["ingress"]
    assert [rule["ports"][0]["port"] for rule in nobody] == ["api"]


def test_the_values_are_those_that_are_modelled() -> None:
    msgspec.convert(yaml.safe_load((CHART / "values.yaml").read_text()), Values)
