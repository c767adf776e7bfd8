"""What may stand in the values of the platform's charts: modelled here, once; `chart_values.py` writes each values.schema.json from it.

values.yaml holds the defaults and says why one would change them; a test holds that it has these fields and no others. People rarely write
these values: the plan makes them from an environment (`mlplatform/plan/values.py`).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from gpu_queue_values import Closed, Digest, Name, Object, OptionalName, Port, Replicas

Size = Annotated[str, Meta(pattern=r"^[1-9][0-9]*(Mi|Gi|Ti)$")]
Texts = dict[str, str]


class OwnImage(Closed):
    """Which image, by tag or by digest."""

    repository: Annotated[str, Meta(min_length=1)]
    tag: str
    digest: Digest
    pull_policy: Literal["IfNotPresent", "Always", "Never"]


class From(Closed):
    """Who may speak with its pods."""

    enabled: bool
    from_: list[Object] = msgspec.field(name="from")


class Chart(Closed, kw_only=True):
    """What every chart takes."""

    global_: Object = msgspec.field(name="global", default_factory=dict)
    """Helm's own: a chart that includes this one may set it."""


# -- foundation -----------------------------------------------------------------------------------------------------------


class Namespace(Closed, kw_only=True):
    """One namespace."""

    security: Literal["restricted", "baseline", "privileged"]
    labels: Texts = msgspec.field(default_factory=dict)
    annotations: Texts = msgspec.field(default_factory=dict)
    limits: dict[Literal["defaultRequest", "default", "max"], Texts]
    quota: Texts = msgspec.field(default_factory=dict)
    ingress: list[Object] = msgspec.field(default_factory=list)
    egress: list[Object] = msgspec.field(default_factory=list)


class Foundation(Chart, kw_only=True):
    """All of helm/foundation."""

    namespaces: dict[Name, Namespace]
    admins: list[Object]


# -- team -----------------------------------------------------------------------------------------------------------------


class Window(Closed, rename={"for_": "for", "time_zone": "timeZone"}):
    """A time with another quota."""

    cron: str
    for_: str
    time_zone: str
    quota: Annotated[int, Meta(ge=0)]


class Lane(Closed, kw_only=True):
    """A line for one kind of GPU."""

    name: Name
    match: Texts
    quota: Annotated[int, Meta(ge=0)]
    windows: list[Window] = msgspec.field(default_factory=list)


class Queue(Closed):
    """The team's GpuQueue."""

    lanes: list[Lane]
    order: Literal["strict", "easy"]
    default_run_limit: str
    budget: Object


class Starter(Closed):
    """A service account that starts runs."""

    name: Name
    namespace: Name


class Runs(Closed):
    """Where runs keep things, and who starts them."""

    pipeline_root: Annotated[str, Meta(pattern="^((gs|s3)://.*[^/])?$")]
    object_store: str
    starters: list[Starter]


class Bucket(Closed, kw_only=True):
    """A bucket of Google's as a volume."""

    name: Annotated[str, Meta(min_length=1)]
    folders: bool = False


class Volumes(Closed):
    """What runs, servers and gateways share, by the names of claims."""

    claims: dict[Name, Size]
    shared_class: str
    buckets: dict[Name, Bucket]


class Sources(Closed):
    """Whom the team's pods may speak with."""

    enabled: bool
    sources: list[Object]


class Team(Chart, kw_only=True):
    """All of helm/team."""

    team: OptionalName
    namespaces: list[Name]
    members: dict[Literal["viewer", "runner", "approver", "releaser"], list[Object]]
    queue: Queue
    runs: Runs
    volumes: Volumes
    network_policy: Sources


# -- mlflow ---------------------------------------------------------------------------------------------------------------


class SecretName(Closed):
    """A Secret by name."""

    secret_name: OptionalName


class Auth(Closed):
    """Who is let in, and who reads whose password."""

    secret_name: OptionalName
    people: dict[Name, list[Object]]


class Artifacts(Closed):
    """Where artifacts lie."""

    destination: Annotated[str, Meta(pattern="^(gs://.+)?$")]
    claim: OptionalName
    size: Size


class Service(Closed):
    """Where it is reached."""

    port: Port


class NetworkPolicy(From):
    """Who asks it, and whom it asks."""

    egress: list[Object]


class Mlflow(Chart, kw_only=True):
    """All of helm/mlflow."""

    image: OwnImage
    replicas: Replicas
    workers: Annotated[int, Meta(ge=1, le=64)]
    resources: Object
    node_selector: Texts
    tolerations: list[Object]
    database: SecretName
    auth: Auth
    artifacts: Artifacts
    hosts: list[str]
    service: Service
    network_policy: NetworkPolicy


# -- postgresql -----------------------------------------------------------------------------------------------------------


class Backups(Closed, kw_only=True):
    """Dumps of the databases."""

    enabled: bool
    schedule: Annotated[str, Meta(pattern=r"^\S+( \S+){4}$")]
    keep: Annotated[int, Meta(ge=1, le=365)]
    size: Size


class Postgresql(Chart, kw_only=True):
    """All of helm/postgresql."""

    image: OwnImage
    resources: Object
    size: Size
    admin_secret_name: OptionalName
    databases: list[Annotated[str, Meta(pattern="^[a-z][a-z0-9_]{0,62}$")]]
    passwords_secret_name: OptionalName
    backups: Backups
    network_policy: From


# -- secrets --------------------------------------------------------------------------------------------------------------


class Secret(Closed, kw_only=True):
    """A Secret and where what it holds comes from."""

    namespace: Name
    name: Name
    type: str = "Opaque"
    data: Texts
    from_: Texts = msgspec.field(name="from")


class Secrets(Chart, kw_only=True):
    """All of helm/secrets."""

    project: str
    secrets: list[Secret]
    refresh: Annotated[str, Meta(pattern="^[1-9][0-9]*(s|m|h)$")]


# -- gke ------------------------------------------------------------------------------------------------------------------


class ComputeClass(Closed):
    """In which order pools are tried."""

    pools: Annotated[list[Name], Meta(min_length=1)]
    when_none: Literal["wait", "anywhere"]


class Page(Closed):
    """A page behind the entrance."""

    name: Name
    namespace: Name
    service: Name
    port: Port


class Entrance(Closed):
    """The load balancer."""

    domain: str
    certificate_map: OptionalName
    address: OptionalName
    pages: list[Page]


class Gke(Chart, kw_only=True):
    """All of helm/gke."""

    compute_classes: dict[Name, ComputeClass]
    entrance: Entrance


CHARTS: dict[str, type[Chart]] = {
    "foundation": Foundation,
    "team": Team,
    "mlflow": Mlflow,
    "postgresql": Postgresql,
    "secrets": Secrets,
    "gke": Gke,
}


def schemas() -> dict[str, dict[str, Any]]:
    """The JSON Schema of each chart's values."""
    return {name: msgspec.json.schema(model) for name, model in CHARTS.items()}
