"""The values of the charts that the platform has once, each made from an environment by one function; defaults of a chart are not repeated.

`values_of_teams` makes those of which each team or model has one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from gpuqueue import labels
from mlplatform import google_names
from mlplatform.addresses import place_of
from mlplatform.environment import Environment
from mlplatform.plan.credentials import STORE, databases, mysql, secret_objects
from mlplatform.plan.registry_rights import accounts
from mlplatform.services import Database, Deployable
from mlplatform.teams import Team

Values = dict[str, Any]

TEAM = "millrace.dev/team"
"""On a namespace: whose it is. NetworkPolicies go by it."""
PAGES = "millrace.dev/pages"
"""On a namespace: the entrance may lead into it."""
_POLICY_SINCE = 36
"""The minor version of Kubernetes from which the API server itself sets the GPU queue's gate."""
_PROMETHEUS = 9090
OBJECT_STORE, _BUCKET = "seaweedfs.kubeflow.svc:8333", "mlpipeline"
"""Where artifacts are that have no bucket at Google: the release's own store, and its bucket there."""
_LIMITS = {"defaultRequest": {"cpu": "50m", "memory": "128Mi"}, "default": {"memory": "512Mi"}}
METADATA = {
    "to": [{"ipBlock": {"cidr": "169.254.169.254/32"}}, {"ipBlock": {"cidr": "169.254.169.252/32"}}],
    "ports": [{"port": 80, "protocol": "TCP"}, {"port": 988, "protocol": "TCP"}],
}
"""Where a pod on GKE has its identity from, as a rule of egress."""
MONITORING = "monitoring"
"""The namespace of what scrapes, keeps and draws."""
RESTRICTED, BASELINE = "restricted", "baseline"


def foundation(environment: Environment) -> Values:
    """Every namespace, the platform's and the teams'."""
    return {
        "namespaces": {**_own_namespaces(environment), **_team_namespaces(environment)},
        "admins": [subject(admin) for admin in environment.access.admins],
    }


def _own_namespaces(environment: Environment) -> Values:
    pages = {PAGES: "true"} if environment.access.domain else {}
    found = {
        "kubeflow": _namespace(RESTRICTED, pages),
        "mlflow": _namespace(RESTRICTED, pages),
        "gpu-queue": _namespace(RESTRICTED, pages),
    }
    if environment.database.kind == "in-cluster":
        found["databases"] = _namespace(RESTRICTED, {})
    # Components of others, whose charts bring no NetworkPolicies: the API server's webhooks call them, and they call it.
    called = {"ports": [{"port": 10250, "protocol": "TCP"}]}
    api_server = {"ports": [{"port": 443, "protocol": "TCP"}, {"port": 6443, "protocol": "TCP"}]}
    if environment.monitoring.kind != "none":
        # node-exporter reads the node it runs on.
        security = "privileged" if environment.monitoring.kind == "operator" else RESTRICTED
        inside: Values = {"from": [{"podSelector": {}}]}
        page = {"from": entrance_peers(environment), "ports": [{"port": 3000, "protocol": "TCP"}]}
        # Prometheus scrapes whoever lets it.
        rules = {"ingress": [called, inside, *([page] if page["from"] else []), *_judging(environment)], "egress": [{}]}
        found[MONITORING] = _namespace(security, pages) | rules
    if environment.versions.cert_manager is not None:
        found["cert-manager"] = _namespace(RESTRICTED, {}) | {"ingress": [called], "egress": [api_server]}
    if environment.secrets.kind == "secret-manager":
        found["external-secrets"] = _namespace(RESTRICTED, {}) | {"ingress": [called], "egress": [api_server, METADATA]}
    return found


def _judging(environment: Environment) -> list[Values]:
    """Triggers that roll out ask Prometheus how a canary does, where it is in this namespace. A pod's port need not be its service's: Prometheus' own, too."""
    if not environment.rolled_out_by_trigger():
        return []
    asked = place_of(environment.monitoring.asked)
    triggers = {**teams_peer(), "podSelector": {"matchLabels": {"app.kubernetes.io/name": "retraining"}}}
    ports = [{"port": port, "protocol": "TCP"} for port in sorted({_PROMETHEUS, asked.port})]
    return [{"from": [triggers], "ports": ports}] if asked.namespace == MONITORING else []


def _team_namespaces(environment: Environment) -> Values:
    found = {}
    for name, team in environment.teams.items():
        marks = {
            TEAM: name,
            **({labels.MANAGED: "true"} if team.lanes else {}),
            **({PAGES: "true"} if _reviewed(environment, team) else {}),
        }
        quota = {
            "requests.cpu": str(team.compute.cpu),
            "requests.memory": f"{team.compute.memory_gb}Gi",
            "pods": str(team.compute.pods),  # that have not ended: a run leaves two dozen behind for an hour
        }
        for namespace in team.namespaces:
            # Steps of pipelines are containers of others, which Kubeflow starts without the settings that restricted asks for.
            found[namespace] = _namespace(
                BASELINE, marks, quota=quota, annotations={"millrace.dev/contact": team.contact} if team.contact else {}
            )
    return found


def _reviewed(environment: Environment, team: Team) -> bool:
    return any(model.review and model.namespace in team.namespaces for model in environment.models.values())


def _namespace(
    security: str, marks: Mapping[str, str], *, quota: Mapping[str, str] | None = None, annotations: Mapping[str, str] | None = None
) -> Values:
    return {
        "security": security,
        "labels": dict(marks),
        "annotations": dict(annotations or {}),
        "limits": _LIMITS,
        "quota": dict(quota or {}),
    }


def secrets(environment: Environment, project: str) -> Values:
    """What External Secrets fetches."""
    return {
        "project": project,
        "secrets": [
            {
                "namespace": each.namespace,
                "name": each.name,
                "data": dict(each.data),
                "from": {variable: google_names.secret(environment, credential.name) for variable, credential in each.sources.items()},
            }
            for each in secret_objects(environment)
        ],
    }


def postgresql(environment: Environment) -> Values:
    """In the cluster."""
    peers = [named("mlflow"), teams_peer()]
    if environment.monitoring.kind != "none":
        peers.append(named(MONITORING))
    return {
        "size": f"{environment.database.disk_gb}Gi",
        "adminSecretName": "postgresql-admin",
        "databases": databases(environment),
        "passwordsSecretName": "postgresql-users",
        "backups": _backups(environment.database),
        "networkPolicy": {"from": peers},
    }


def _backups(database: Database) -> Values:
    """As much disk again as the data has: dumps are compressed, and there are several."""
    hour, minute = database.backups.at.split(":")
    return {"enabled": True, "schedule": f"{int(minute)} {int(hour)} * * *", "keep": database.backups.keep, "size": f"{database.disk_gb}Gi"}


def mlflow(environment: Environment) -> Values:
    """The registry."""
    buckets, domain = environment.storage.buckets, environment.access.domain
    return {
        "image": image(environment, Deployable.MLFLOW),
        "replicas": 2 if buckets else 1,
        "database": {"secretName": "mlflow-database"},
        "auth": {
            "secretName": "mlflow-auth",
            "people": {each.kept_in[0].name: [subject(member) for member in each.people] for each in accounts(environment) if each.people},
        },
        "artifacts": {"destination": f"gs://{buckets.mlflow}"}
        if buckets
        else {"claim": "mlflow-artifacts", "size": environment.storage.claim},
        "hosts": [f"mlflow.{domain}"] if domain else [],
        "networkPolicy": {"from": [teams_peer(), *entrance_peers(environment)]},
    }


def gpu_queue(environment: Environment) -> Values:
    """The queue's controller, gate and guards."""
    minor = int(environment.versions.kubernetes.partition(".")[2])
    return {
        "image": image(environment, Deployable.GPU_QUEUE),
        # Named, because a plan is made far from the cluster.
        "admission": "policy" if minor >= _POLICY_SINCE else "webhook",
        "monitoring": watched(environment),
    }


def gke(environment: Environment) -> Values:
    """What only GKE has."""
    classes = {name: {"pools": list(c.pools), "whenNone": c.when_none} for name, c in environment.compute_classes.items()}
    domain = environment.access.domain
    named = google_names.entrance(environment)
    entrance: Values = {"domain": domain, "certificateMap": named, "address": named, "pages": _pages(environment)} if domain else {}
    return {"computeClasses": classes, "entrance": entrance}


def _pages(environment: Environment) -> list[Values]:
    found = [
        {"name": "pipelines", "namespace": "kubeflow", "service": "ml-pipeline-ui", "port": 80},
        {"name": "mlflow", "namespace": "mlflow", "service": "mlflow", "port": 5000},
        {"name": "gpus", "namespace": "gpu-queue", "service": "gpu-queue", "port": 80},
    ]
    if environment.monitoring.kind != "none":
        found.append({"name": "grafana", "namespace": "monitoring", "service": "grafana", "port": 80})
    reviewed = [(name, model) for name, model in environment.models.items() if model.review]
    return found + [{"name": f"review-{n}", "namespace": m.namespace, "service": f"{n}-review", "port": 80} for n, m in reviewed]


def pipelines(environment: Environment) -> dict[str, dict[str, str]]:
    """What Kubeflow Pipelines is told, by ConfigMap."""
    buckets = environment.storage.buckets
    told = {"bucketName": buckets.artifacts if buckets else _BUCKET, "defaultPipelineRoot": pipeline_root(environment)}
    if environment.database.kind == "cloud-sql":
        told["mysqlHost"] = mysql(environment)
    return {"pipeline-install-config": told, "workflow-controller-configmap": {"artifactRepository": _kept_logs(environment)}}


def pipeline_root(environment: Environment) -> str:
    """Below which runs keep what their steps hand on."""
    buckets = environment.storage.buckets
    return f"gs://{buckets.artifacts}" if buckets else f"s3://{_BUCKET}"


def _kept_logs(environment: Environment) -> str:
    """Where Argo keeps the logs of steps. The release leaves names in it that only its own overlays fill in, and knows SeaweedFS only; a pod whose log
    cannot be kept has failed.
    """
    buckets = environment.storage.buckets
    kept: Values = {
        "keyFormat": "private-artifacts/{{workflow.namespace}}/{{workflow.name}}/"
        "{{workflow.creationTimestamp.Y}}/{{workflow.creationTimestamp.m}}/{{workflow.creationTimestamp.d}}/{{pod.name}}"
    }
    if buckets:
        return yaml.safe_dump({"archiveLogs": True, "gcs": {"bucket": buckets.artifacts, **kept}}, sort_keys=False, width=1000)
    keys = {f"{each}KeySecret": {"name": STORE, "key": f"{each}key"} for each in ("access", "secret")}
    store = {"endpoint": OBJECT_STORE, "bucket": _BUCKET, "insecure": True, **keys, **kept}
    return yaml.safe_dump({"archiveLogs": True, "s3": store}, sort_keys=False, width=1000)


def image(environment: Environment, which: Deployable) -> Values:
    """One of ours, by digest where it has one."""
    images = environment.images
    return {"repository": f"{images.registry}/{which.value}", "tag": images.tag, "digest": images.digests.get(which, "")}


def watched(environment: Environment, *, once: bool = True) -> Values:
    """Scraped always; rules and dashboard once, for they look at all releases."""
    kind = environment.monitoring.kind
    if kind == "none":
        return {}
    chosen: Values = {"labels": {"release": "prometheus"}} if kind == "operator" else {}
    return {
        "rules": {
            "enabled": once,
            "kind": "PrometheusRule" if kind == "operator" else "Rules",
            "runbooks": environment.monitoring.runbooks,
            **chosen,
        },
        "scrape": {"enabled": True, "kind": "PodMonitor" if kind == "operator" else "PodMonitoring", **chosen},
        "dashboard": {"enabled": once},
    }


def subject(member: str) -> Values:
    """As RBAC names who an environment names. GKE knows a service account of Google's by its address, as it does a person."""
    kind, _, address = member.partition(":")
    return {"kind": "Group" if kind == "group" else "User", "apiGroup": "rbac.authorization.k8s.io", "name": address}


def named(namespace: str) -> Values:
    """A namespace as a peer of a NetworkPolicy."""
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}


def teams_peer() -> Values:
    """Every team's namespaces, likewise."""
    return {"namespaceSelector": {"matchExpressions": [{"key": TEAM, "operator": "Exists"}]}}


def entrance_peers(environment: Environment) -> list[Values]:
    """Google's load balancers, from which what IAP let in comes."""
    return [{"ipBlock": {"cidr": cidr}} for cidr in ("130.211.0.0/22", "35.191.0.0/16")] if environment.access.domain else []
