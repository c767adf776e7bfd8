"""What cannot be true at once in an environment: found before anything runs, all at a time, each with its field and what to do.

Pure: an environment goes in, sentences come out. What one field alone can say stands with that field.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from mlplatform import accelerators, google_names
from mlplatform.addresses import place_of
from mlplatform.cloud import Capacity, Google, NodePool
from mlplatform.services import Deployable

if TYPE_CHECKING:
    from mlplatform.environment import Environment

_SPELLED = ("changeme", "change-me", "todo", "placeholder", "xxx", "replace-me", "your-")
"""What people write where a value is still missing."""
_SYSTEM = frozenset(
    {
        "default",
        "kubeflow",
        "mlflow",
        "monitoring",
        "gpu-queue",
        "retraining",
        "cert-manager",
        "external-secrets",
        "millrace-system",
        "gmp-system",
        "gmp-public",
    }
)
"""Namespaces that the platform fills itself."""
_REGISTRYS = frozenset({"default", "workspaces", "api", "ajax-api", "static-files"})
"""Names of workspaces that MLflow keeps for itself."""
_SHORTEST_WORKSPACE = 2
_HTTPS = 443
WINDOW_HOURS = 48
"""Of maintenance, in every 32 days: GKE's own rule."""
RANGES = ("nodes", "pods", "services", "control_plane", "private_services")


def contradictions(environment: Environment) -> Iterator[str]:
    """Each as `field: what is wrong and what to do`."""
    if environment.cloud is not None:
        yield from _network(environment.cloud)
        yield from _cloud(environment.cloud)
        yield from _groups(environment)
    yield from _pools(environment)
    yield from _classes(environment)
    yield from _namespaces(environment)
    yield from _quotas(environment)
    yield from _models(environment)
    yield from _prometheus(environment)
    yield from _workspaces(environment)
    yield from _services(environment)
    if environment.stage != "development":
        yield from _serious(environment)


def _network(cloud: Google) -> Iterator[str]:
    ranges = {name: getattr(cloud.network, name) for name in RANGES} | {f"authorized.{k}": v for k, v in cloud.network.authorized.items()}
    for one, other in itertools.combinations(RANGES, 2):
        if ranges[one].overlaps(ranges[other]):
            yield f"cloud.network.{other}: {ranges[other]} overlaps {one}, {ranges[one]}; give each a range of its own"
    for name in RANGES:
        if not ranges[name].is_private:
            yield f"cloud.network.{name}: {ranges[name]} is not a private range; take one of 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16"
    if cloud.network.control_plane.prefixlen != 28:  # noqa: PLR2004  # GKE's own rule
        yield f"cloud.network.control_plane: {cloud.network.control_plane} is not a /28, which GKE asks for"
    if cloud.network.private_services.prefixlen > 24:  # noqa: PLR2004  # Google's own rule
        yield f"cloud.network.private_services: {cloud.network.private_services} is smaller than a /24, which Cloud SQL asks for"
    yield from _authorized(cloud)


def _authorized(cloud: Google) -> Iterator[str]:
    for name, network in cloud.network.authorized.items():
        if network.prefixlen == 0:
            yield f"cloud.network.authorized.{name}: {network} is everybody; name your offices, or use the DNS endpoint alone"
        elif not network.is_private:
            yield f"cloud.network.authorized.{name}: {network} is public, and the control plane has no public address; name a range of your VPN"
    if not cloud.network.dns_endpoint and not cloud.network.authorized:
        yield "cloud.network.dns_endpoint: without it, and with nobody in authorized, nobody reaches the control plane"


def _cloud(cloud: Google) -> Iterator[str]:
    for zone in cloud.zones:
        if not zone.startswith(f"{cloud.region}-"):
            yield f"cloud.zones: {zone} is not in {cloud.region}"
    window = cloud.maintenance
    if (hours := window.hours * len(set(window.days)) * 4) < WINDOW_HOURS:
        yield f"cloud.maintenance: {hours} hours in four weeks, and Google asks for {WINDOW_HOURS} in 32 days; give it more hours or days"


def _pools(environment: Environment) -> Iterator[str]:
    if not any(pool.gpu is None for pool in environment.node_pools.values()):
        yield "node_pools: none is without GPUs, and the platform itself needs one that is"
    for name, pool in environment.node_pools.items():
        for complaint in _pool(pool, environment):
            yield f"node_pools.{name}.{complaint}"


def _pool(pool: NodePool, environment: Environment) -> Iterator[str]:
    if pool.min > pool.max:
        yield f"min: {pool.min} is above max, {pool.max}"
    if pool.gpu is not None and pool.min:
        yield f"min: {pool.min} GPU nodes would run all day; write 0, or reserve them and say so with capacity: reservation"
    if (pool.capacity == Capacity.RESERVATION) != (pool.reservation is not None):
        yield f"reservation: capacity {pool.capacity} {'has none' if pool.reservation else 'needs its name'}; one pool is bought in one way"
    if pool.run_limit_hours and pool.capacity != Capacity.FLEX_START:
        yield f"run_limit_hours: is for capacity flex-start, and this is {pool.capacity}"
    if environment.cloud is not None:
        yield from _machine(pool, environment.cloud)


def _machine(pool: NodePool, cloud: Google) -> Iterator[str]:
    if not pool.machine:
        yield "machine: name Google's machine type, for example e2-standard-4"
    elif pool.gpu is not None and (why := accelerators.misfit(pool.machine, pool.gpu.type, pool.gpu.count)):
        yield f"gpu: {why}"
    elif pool.gpu is None and accelerators.built_in(pool.machine):
        yield f"gpu: {pool.machine} comes with GPUs; name them, or take a machine without"
    for zone in pool.zones:
        if zone not in cloud.zones:
            yield f"zones: {zone} is not one of cloud.zones"


def _classes(environment: Environment) -> Iterator[str]:
    owners: dict[str, str] = {}
    for name, wanted in environment.compute_classes.items():
        where = f"compute_classes.{name}.pools"
        if missing := [pool for pool in wanted.pools if pool not in environment.node_pools]:
            yield f"{where}: no such pool: {', '.join(missing)}. There are: {', '.join(environment.node_pools)}"
            continue
        kinds = {pool.gpu.type if pool.gpu else "no GPU" for pool in map(environment.node_pools.__getitem__, wanted.pools)}
        if len(kinds) > 1:
            yield f"{where}: mixes {', '.join(sorted(kinds))}; a class is of one GPU type"
        for pool, times in Counter(wanted.pools).items():
            if times > 1:
                yield f"{where}: {pool} stands there {times} times"
            if (first := owners.setdefault(pool, name)) != name:
                yield f"{where}: {pool} is in class {first} too, and GKE knows a pool by one class; make a second pool"


def _groups(environment: Environment) -> Iterator[str]:
    if len(domains := google_names.group_domains(environment)) > 1:
        yield f"teams: groups of {', '.join(domains)}; Kubernetes on GKE knows the groups of one domain only"


def _namespaces(environment: Environment) -> Iterator[str]:
    owners: dict[str, str] = {}
    for team, about in environment.teams.items():
        for namespace in about.namespaces:
            where = f"teams.{team}.namespaces"
            if namespace in owners:
                yield f"{where}: {namespace} is {owners[namespace]}'s too; a namespace has one team"
            owners.setdefault(namespace, team)
            if namespace in _SYSTEM or namespace.startswith("kube-"):
                yield f"{where}: {namespace} is the platform's; take another name"


def _quotas(environment: Environment) -> Iterator[str]:
    promised: Counter[str] = Counter()
    there = environment.gpus()
    for team, about in environment.teams.items():
        for lane, line in about.lanes.items():
            where = f"teams.{team}.lanes.{lane}"
            if line.type not in there:
                yield f"{where}.type: no node pool has {line.type}. There are: {', '.join(sorted(there)) or 'none'}"
                continue
            promised[line.type] += line.most
            if line.most > there[line.type]:
                yield f"{where}.quota: {line.most} GPUs, and the pools of {line.type} have {there[line.type]} at most; raise a pool's max or lower the quota"
        kinds = Counter(line.type for line in about.lanes.values())
        if twice := [kind for kind, times in kinds.items() if times > 1]:
            yield f"teams.{team}.lanes: {', '.join(twice)} in two lanes; a pod could be in either"
    for kind, gpus in promised.items():
        if there[kind] < gpus and all(
            line.most <= there[kind] for team in environment.teams.values() for line in team.lanes.values() if line.type == kind
        ):
            yield f"teams: together they are promised {gpus} × {kind}, and the pools have {there[kind]} at most; raise a pool's max or lower a quota"


def _models(environment: Environment) -> Iterator[str]:
    for name, model in environment.models.items():
        team = environment.teams.get(model.team)
        if team is None:
            yield f"models.{name}.team: no such team: {model.team}. There are: {', '.join(environment.teams)}"
        elif model.namespace not in team.namespaces:
            yield f"models.{name}.namespace: {model.namespace} is not {model.team}'s, which has {', '.join(team.namespaces)}"
        if (model.gpus > 0) != (model.gpu_type is not None):
            yield f"models.{name}.gpu_type: {'name the type of its GPUs' if model.gpus else 'it has no GPUs'}"
        elif model.gpu_type is not None and model.gpu_type not in environment.gpus():
            yield f"models.{name}.gpu_type: no node pool has {model.gpu_type}"
        if model.rollout == "automatic":
            yield from (f"models.{name}.rollout: {why}" for why in _undriven(environment))
        if model.review and environment.access.sign_in == "iap" and not model.review_audience:
            yield f"models.{name}.review_audience: IAP's is known once the entrance is there: deploy with review: false, then write it"


def _workspaces(environment: Environment) -> Iterator[str]:
    for name in environment.teams:
        if name in _REGISTRYS or len(name) < _SHORTEST_WORKSPACE:
            yield f"teams.{name}: the registry can have no workspace of that name; take a longer or another one"


def _undriven(environment: Environment) -> Iterator[str]:
    """Why nobody would roll out by itself here."""
    if not environment.retraining.enabled:
        yield "automatic is what a trigger does, and retraining.enabled is false; switch it on, or write by-hand"
    if not environment.monitoring.asked:
        where = "the query front end of Google's" if environment.monitoring.kind == "google" else "the one that scrapes the gateways"
        yield f"a canary is judged by a Prometheus; name {where} in monitoring.prometheus, or write by-hand"


def _prometheus(environment: Environment) -> Iterator[str]:
    """A NetworkPolicy knows no names: what it cannot let triggers out to."""
    if not environment.monitoring.asked or not environment.rolled_out_by_trigger():
        return
    asked = place_of(environment.monitoring.asked)
    if asked.namespace or asked.address:
        return
    if "." not in asked.host:
        yield f"monitoring.prometheus: {asked.host} is a name in one namespace only; write which: http://{asked.host}.NAMESPACE.svc:{asked.port}"
    elif asked.port != _HTTPS:
        yield f"monitoring.prometheus: to names outside the cluster, {asked.host}, triggers are let out on port {_HTTPS} only, and this is {asked.port}; take https, an address in place of the name, or NAME.NAMESPACE.svc for a service of the cluster"


def _services(environment: Environment) -> Iterator[str]:
    if environment.cloud is not None:
        return
    asked = {
        "storage.kind": environment.storage.kind == "gcs",
        "database.kind": environment.database.kind == "cloud-sql",
        "secrets.kind": environment.secrets.kind == "secret-manager",
        "access.sign_in": environment.access.sign_in == "iap",
        "monitoring.kind": environment.monitoring.kind == "google",
        "compute_classes": bool(environment.compute_classes),
    }
    for field, google in asked.items():
        if google:
            yield f"{field}: that is Google's, and this environment has no 'cloud'"


def _serious(environment: Environment) -> Iterator[str]:
    """What a stage that people rely on must not have."""
    stage = environment.stage
    if environment.secrets.kind == "files":
        yield f"secrets.kind: files on somebody's machine are for stage development; {stage} takes secret-manager or existing"
    if environment.cloud is not None:
        if not environment.cloud.network.private_nodes:
            yield f"cloud.network.private_nodes: nodes with public addresses are for stage development, and this is {stage}"
        if not environment.cloud.deletion_protection:
            yield f"cloud.deletion_protection: {stage} keeps it"
    if environment.versions.millrace is None:
        yield f"versions.millrace: {stage} names the release that it is at: see platform/release.yaml"
    for field, text in _texts(environment):
        if any(word in text.lower() for word in _SPELLED):
            yield f"{field}: {text!r} looks like a placeholder; {stage} needs the real one"


def unready(environment: Environment) -> Iterator[str]:
    """What may still be missing while one plans, and must not be when one deploys; each as `field: what to do`."""
    if environment.retraining.enabled and not environment.images.digests.get(Deployable.STEPS):
        yield "images.digests.steps: runs are made of it, and the trigger takes it by digest only; write it, or switch retraining off"
    if environment.stage == "development":
        return
    for field, text in (*_texts(environment), *_addresses(environment)):
        if "example.com" in text or "example.org" in text:
            yield f"{field}: {text} is nobody's; write your own"
    if environment.cloud is not None and environment.cloud.billing_account == "000000-000000-000000":
        yield "cloud.billing_account: write yours: gcloud billing accounts list"
    if environment.stage == "production":
        bare = [name for name in environment.deployables() if not environment.images.digests.get(name)]
        yield from (f"images.digests.{name}: production runs what was tested: write its sha256 digest" for name in bare)


def _addresses(environment: Environment) -> Iterator[tuple[str, str]]:
    yield from (("access.admins", admin) for admin in environment.access.admins)
    yield from (("registry.auditors", auditor) for auditor in environment.registry.auditors)
    for team, about in environment.teams.items():
        yield from ((f"teams.{team}.members.{role}", member) for role, members in about.members.items() for member in members)


def _texts(environment: Environment) -> Iterator[tuple[str, str]]:
    yield "images.registry", environment.images.registry
    if environment.cloud is not None:
        yield "cloud.project", environment.cloud.project
    if environment.access.domain:
        yield "access.domain", environment.access.domain
    if environment.storage.buckets is not None:
        yield from ((f"storage.buckets.{name}", bucket) for name, bucket in environment.storage.buckets)
    for name, receiver in environment.monitoring.receivers.items():
        yield f"monitoring.receivers.{name}.to", receiver.to
