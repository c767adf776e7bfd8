"""The plan: which steps, in which order. Pure, so that what would be done can be read, tested and compared without a cluster.

What comes first is what others stand on: namespaces and rights, secrets, databases; then the orchestrator and the registry; the queue before
the teams, whose namespaces it gates; the teams before what runs in their namespaces.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mlplatform.environment import Environment
from mlplatform.plan import alerting, values, values_of_teams
from mlplatform.plan.credentials import postgresql, secret_objects
from mlplatform.plan.registry_rights import registry_rights
from mlplatform.plan.steps import SYSTEM, Chart, Manifests, RemoteChart, Secrets, Step

KEPT = (
    *(f"tracks.{track}.{field}" for track in ("stable", "canary", "shadow") for field in ("enabled", "version", "digest", "weight")),
    "rollout",
)
"""Of a model's release: what rollouts choose. Replicas and resources of the stable track are the environment's."""


def plan(environment: Environment) -> tuple[Step, ...]:
    """The steps in their order."""
    return (
        *_ground(environment),
        *_operators(environment),
        *_middle(environment),
        *_teams(environment),
        *_models(environment),
    )


def _ground(environment: Environment) -> Iterator[Step]:
    yield _chart(
        "foundation", "namespaces, pod security, limits, nobody speaks with anybody", values.foundation(environment), ready="they are there"
    )
    yield Step(
        name="roles",
        what="what viewers, runners, approvers and releasers may do",
        owner="k8s/roles",
        source=Manifests(path="k8s/roles", settings={}),
        ready="they are there",
    )


def _operators(environment: Environment) -> Iterator[Step]:
    versions = environment.versions
    if environment.secrets.kind == "secret-manager" and environment.cloud is not None:
        yield _remote(
            "external-secrets", "External Secrets", "https://charts.external-secrets.io", versions.external_secrets, {"installCRDs": True}
        )
        made = values.secrets(environment, environment.cloud.project)
        yield _chart("secrets", f"{len(made['secrets'])} Secrets from Secret Manager", made, ready="each has been fetched")
    else:
        here = environment.secrets.kind == "files"
        yield Step(
            name="secrets",
            what=f"{len(list(secret_objects(environment)))} Secrets from {'files' if here else 'whoever makes them'}",
            owner="secrets of the environment",
            source=Secrets(objects=tuple(secret_objects(environment)), made_here=here),
            ready="they are there, with every key",
        )
    if versions.cert_manager is not None:
        yield _remote("cert-manager", "cert-manager", "https://charts.jetstack.io", versions.cert_manager, {"crds": {"enabled": True}})
    yield from _monitoring(environment)


def _monitoring(environment: Environment) -> Iterator[Step]:
    kind, versions = environment.monitoring.kind, environment.versions
    grafana = _grafana(environment)
    if kind == "operator":
        told = {
            "prometheus": {
                "prometheusSpec": {
                    "retention": f"{environment.monitoring.retention_days}d",
                    "storageSpec": _claim(environment.monitoring.disk),
                }
            },
            "alertmanager": {"alertmanagerSpec": {"useExistingSecret": True, "configSecret": alerting.OPERATOR[1]}},
            "grafana": grafana,
        }
        yield _remote("prometheus", "Prometheus operator, Prometheus, Alertmanager, Grafana", "https://prometheus-community.github.io/helm-charts", versions.prometheus_stack, told, chart="kube-prometheus-stack", namespace="monitoring")  # fmt: skip
    if kind == "google":
        yield _remote("grafana", "Grafana with our dashboards; Prometheus is Google's", "https://grafana-community.github.io/helm-charts", versions.grafana, grafana, namespace="monitoring")  # fmt: skip


def _grafana(environment: Environment) -> dict[str, Any]:
    domain = environment.access.domain
    return {
        "fullnameOverride": "grafana",
        "admin": {"existingSecret": "grafana-admin", "userKey": "admin-user", "passwordKey": "admin-password"},
        "sidecar": {"dashboards": {"enabled": True, "label": "grafana_dashboard", "searchNamespace": "ALL"}},
        "envValueFrom": {"GF_DATABASE_PASSWORD": {"secretKeyRef": {"name": "grafana-admin", "key": "database-password"}}},
        "grafana.ini": {
            "database": {"type": "postgres", "host": f"{postgresql(environment)}:5432", "name": "grafana", "user": "grafana"},
            **({"server": {"root_url": f"https://grafana.{domain}"}} if domain else {}),
            **(
                {"auth.proxy": {"enabled": True, "header_name": "X-Goog-Authenticated-User-Email"}}
                if environment.access.sign_in == "iap"
                else {}
            ),
        },
    }


def _claim(size: str) -> dict[str, Any]:
    return {"volumeClaimTemplate": {"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}}}


def _middle(environment: Environment) -> Iterator[Step]:
    if environment.database.kind == "in-cluster":
        yield _chart("postgresql", "PostgreSQL with a database for each component", values.postgresql(environment), namespace="databases", ready="it answers, and every database is there")  # fmt: skip
    version = environment.versions.kubeflow_pipelines
    variant = "in-cluster" if environment.storage.kind == "in-cluster" else "google"
    yield Step(
        name="kubeflow-pipelines",
        what=f"Kubeflow Pipelines {version} for several teams",
        owner="k8s/kubeflow-pipelines",
        source=Manifests(
            path=f"k8s/kubeflow-pipelines/{variant}",
            settings=values.pipelines(environment),
            fetched=f"github.com/kubeflow/pipelines at {version}, with Argo Workflows",
        ),
        ready="its kinds are established and its pods are ready",
        patience=900,
    )
    yield _chart("mlflow", "the registry, with authentication and its artifacts behind it", values.mlflow(environment), namespace="mlflow")
    rights = registry_rights(environment)
    yield Step(
        name="registry-rights",
        what=f"who may do what in the registry: {', '.join(rights.workspaces) or 'no teams'}; others' are {'to be read' if environment.registry.others == 'read' else 'hidden'}",
        owner="teams of the environment",
        source=rights,
        ready="the registry knows each by its password, and grants it no more",
        patience=120,
    )
    yield _chart("gpu-queue", "the line in front of GPUs: kind, gate, guards, controller", values.gpu_queue(environment), namespace="gpu-queue", ready="the kind is established and its pods are ready")  # fmt: skip
    if environment.cloud is not None:
        yield _chart("gke", "in which order GPUs are looked for, and the entrance to the pages", values.gke(environment), ready="the entrance is programmed")  # fmt: skip


def _teams(environment: Environment) -> Iterator[Step]:
    for name, team in environment.teams.items():
        yield Step(
            name=f"team-{name}",
            what=f"{', '.join(team.namespaces)}: roles, {_lanes(environment, name)}, the account of runs",
            owner="helm/team",
            source=Chart(path="helm/team", release=f"team-{name}", namespace=SYSTEM, values=values_of_teams.team(environment, name)),
            ready="they are there",
        )
        if environment.retraining.enabled:
            yield _chart(
                "retraining",
                f"{name}: the trigger{_rolls(environment, name)}",
                values_of_teams.retraining(environment, name),
                name=f"retraining-{name}",
                namespace=team.namespaces[0],
            )


def _lanes(environment: Environment, name: str) -> str:
    return ", ".join(f"{lane.quota} × {lane.type}" for lane in environment.teams[name].lanes.values()) or "no GPUs"


def _rolls(environment: Environment, team: str) -> str:
    models = environment.rolled_out_by_trigger(team)
    return f", which rolls out {', '.join(models)}" if models else ""


def _models(environment: Environment) -> Iterator[Step]:
    for name, model in environment.models.items():
        yield Step(
            name=f"serving-{name}",
            what=f"{name} in {model.namespace}: {model.replicas} servers, gateway{', monitor' * model.monitor}{', review page' * model.review}",
            owner="helm/model-serving",
            source=Chart(
                path="helm/model-serving",
                release=name,
                namespace=model.namespace,
                values=values_of_teams.serving(environment, name),
                kept=KEPT,
            ),
            ready="every track answers",
            patience=900,
        )


def _chart(
    chart: str, what: str, told: dict[str, Any], *, name: str = "", namespace: str = SYSTEM, ready: str = "all its pods are ready"
) -> Step:
    source = Chart(path=f"helm/{chart}", release=chart, namespace=namespace, values=told)
    return Step(name=name or chart, what=what, owner=f"helm/{chart}", source=source, ready=ready)


def _remote(name: str, what: str, repository: str, version: str, told: dict[str, Any], *, chart: str = "", namespace: str = "") -> Step:
    source = RemoteChart(
        repository=repository, chart=chart or name, version=version, release=name, namespace=namespace or name, values=told
    )
    return Step(name=name, what=what, owner=f"chart {chart or name} of {repository.removeprefix('https://')}", source=source, patience=600)
