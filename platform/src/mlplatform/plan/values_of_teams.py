"""The values of the charts of which each team or model has one: helm/team, helm/retraining, helm/model-serving."""

from __future__ import annotations

from ipaddress import ip_network

from mlplatform.addresses import place_of
from mlplatform.environment import Environment
from mlplatform.plan.registry_rights import ACCOUNT_SECRET
from mlplatform.plan.values import MONITORING, OBJECT_STORE, Values, entrance_peers, image, named, pipeline_root, subject, watched
from mlplatform.services import Deployable, ServedModel, Storage
from mlplatform.teams import Lane, Role, Team

ACCELERATOR = "cloud.google.com/gke-accelerator"
WORKSPACE, MODELS, PREDICTIONS = "millrace-workspace", "models", "predictions"
"""The claims that every step of a run mounts, as `mlpipelines.pipeline` compiles it."""
MOUNTS_BUCKETS = "gke-gcsfuse/volumes"
"""The annotation by which GKE brings buckets into a pod."""
_UNKNOWN_DIGEST = "sha256:" + 64 * "0"
"""Of an image that is not built yet: one can plan with it, and `unready` keeps it from being deployed."""


def team(environment: Environment, name: str) -> Values:
    """Roles, quotas, the account of runs."""
    about = environment.teams[name]
    buckets = environment.storage.buckets
    home = about.namespaces[0]
    store = {"objectStore": OBJECT_STORE} if buckets is None else {}
    found: Values = {
        "team": name,
        "namespaces": list(about.namespaces),
        "members": {role.value: [subject(member) for member in about.members[role]] for role in Role if about.members.get(role)},
        "queue": _queue(about),
        "runs": {"pipelineRoot": pipeline_root(environment), **store},
        "volumes": _volumes(environment.storage),
    }
    if environment.retraining.enabled:
        found["runs"]["starters"] = [{"name": "retraining", "namespace": home}]
    return found


def _volumes(storage: Storage) -> Values:
    """What runs share with each other, with servers and with gateways."""
    if (buckets := storage.buckets) is None:
        claims = dict.fromkeys((WORKSPACE, MODELS, PREDICTIONS), storage.claim)
        return {"claims": claims, **({"sharedClass": storage.shared_class} if storage.shared_class else {})}
    return {
        "buckets": {
            WORKSPACE: {"name": buckets.workspace, "folders": True},
            MODELS: {"name": buckets.models},
            PREDICTIONS: {"name": buckets.predictions},
        }
    }


def _queue(about: Team) -> Values:
    found: Values = {"lanes": [_lane(name, lane) for name, lane in about.lanes.items()], "order": about.order}
    if about.run_limit:
        found["defaultRunLimit"] = about.run_limit
    if about.budget:
        budget = about.budget
        found["budget"] = {"gpuHours": budget.gpu_hours, "per": budget.per, "warnAt": list(budget.warn_at), "whenSpent": budget.when_spent}
    return found


def _lane(name: str, lane: Lane) -> Values:
    found: Values = {"name": name, "match": {ACCELERATOR: lane.type}, "quota": lane.quota}
    if lane.windows:
        found["windows"] = [{"cron": w.cron, "for": w.lasts, "timeZone": w.time_zone, "quota": w.quota} for w in lane.windows]
    return found


def retraining(environment: Environment, team_name: str) -> Values:
    """A team's trigger."""
    home = environment.teams[team_name].namespaces[0]
    images = environment.images
    for_gpus = images.digests.get(Deployable.STEPS_GPU)
    found: Values = {
        "image": image(environment, Deployable.TRIGGER),
        "kubeflow": {
            "image": f"{images.registry}/steps@{images.digests.get(Deployable.STEPS) or _UNKNOWN_DIGEST}",
            **({"gpuImage": f"{images.registry}/steps-gpu@{for_gpus}"} if for_gpus else {}),
            "namespace": home,
        },
        "projects": {"claim": environment.retraining.projects_claim},
        "workspace": {"claim": WORKSPACE, "predictions": PREDICTIONS},
        **({"annotations": {MOUNTS_BUCKETS: "true"}} if environment.storage.buckets else {}),
        "database": {"secretName": "retraining-database"},
        "token": {"secretName": "retraining-token"},
        "registry": {"secretName": ACCOUNT_SECRET},
        "monitoring": watched(environment, once=team_name == next(iter(environment.teams))),
    }
    if models := environment.rolled_out_by_trigger(team_name):
        found["rollouts"] = {
            "releases": {name: {"release": name, "namespace": model.namespace} for name, model in models.items()},
            "prometheus": environment.monitoring.asked,
        }
        if (peers := _prometheus_peers(environment)) != [named(MONITORING)]:
            found["networkPolicy"] = {"prometheus": peers}
    return found


def _prometheus_peers(environment: Environment) -> list[Values]:
    """To whom triggers are let out who ask how a canary does. By a name outside, nobody beyond port 443, which is open to them anyway."""
    asked = place_of(environment.monitoring.asked)
    if asked.namespace:
        return [named(asked.namespace)]
    return [{"ipBlock": {"cidr": str(ip_network(asked.address))}}] if asked.address else []


def serving(environment: Environment, name: str) -> Values:
    """One model's tracks, gateway, monitor and review page."""
    model = environment.models[name]
    found: Values = {
        "model": {"name": name},
        "tracks": {"stable": _track(model)},
        "server": _server(environment),
        "gateway": {
            "image": image(environment, Deployable.SERVING),
            **({"replicas": 1} if environment.stage == "development" else {}),
            "settings": {"log": {"share": model.log_share, "features": list(model.features)}},
        },
        "monitor": {"enabled": model.monitor},
        "review": _review(environment, name, model),
        "networkPolicy": {
            "callersFrom": [named(namespace) for namespace in (model.namespace, *model.callers)],
            "reviewersFrom": entrance_peers(environment),
        },
        "monitoring": _serving_watched(environment, once=name == next(iter(environment.models))),
    }
    buckets = environment.storage.buckets
    if buckets:
        found["store"] = {"kind": "gcs", "bucket": {"name": buckets.models}}
        found["gateway"]["predictions"] = {"kind": "gcs", "bucket": {"name": buckets.predictions}}
    else:
        found["store"] = {"kind": "claim", "claim": {"name": MODELS}}
        found["gateway"]["predictions"] = {"kind": "claim", "claim": {"name": PREDICTIONS}}
    return found


def _track(model: ServedModel) -> Values:
    resources = {"requests": {"cpu": model.cpu, "memory": model.memory}, "limits": {"memory": model.memory}}
    found: Values = {"version": model.first_version, "replicas": model.replicas, "resources": resources}
    if model.gpu_type:
        found["gpu"] = {"count": model.gpus, "accelerator": model.gpu_type}
    return found


def _server(environment: Environment) -> Values:
    """TensorFlow Serving; on one machine our own, which is as good there and smaller."""
    if environment.stage == "development":
        return {"kind": "millrace", "image": image(environment, Deployable.MODEL_SERVER)}
    return {"kind": "tensorflow"}


def _review(environment: Environment, name: str, model: ServedModel) -> Values:
    if not model.review:
        return {"enabled": False}
    iap = environment.access.sign_in == "iap"
    access: Values = (
        {"kind": "iap", "audience": model.review_audience} if iap else {"kind": "users", "users": {"name": f"{name}-reviewers"}}
    )
    secret = f"{name}-review"
    return {
        "enabled": True,
        "publicUrl": f"https://review-{name}.{environment.access.domain}" if environment.access.domain else "",
        "database": {"kind": "postgresql", "secret": {"name": secret}},
        "sessions": {"name": secret},
        "access": access,
    }


def _serving_watched(environment: Environment, *, once: bool) -> Values:
    flavour = {"operator": "operator", "google": "gmp", "none": "none"}[environment.monitoring.kind]
    chosen: Values = {"labels": {"release": "prometheus"}} if flavour == "operator" else {}
    return {
        "flavour": flavour,
        **chosen,
        "rules": {"enabled": once and flavour != "none", "runbooks": environment.monitoring.runbooks, **chosen},
        "dashboard": {"enabled": once and flavour != "none"},
    }
