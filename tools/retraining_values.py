"""What may stand in the values of `helm/retraining`: modelled here, once; `chart_values.py` writes the chart's values.schema.json from it.

values.yaml holds the defaults and says why one would change them; a test holds that it has these fields and no others.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from gpu_queue_values import Closed, Dashboard, Image, Name, Object, OptionalName, Pods, Port, Rules, Scrape

StepsImage = Annotated[str, Meta(pattern=r"^(\S+@sha256:[0-9a-f]{64})?$")]
Address = Annotated[str, Meta(pattern="^https?://.+")]
OptionalAddress = Annotated[str, Meta(pattern="^(https?://.+)?$")]


class Kubeflow(Closed):
    """Where runs go, and what they are made of."""

    url: Address
    image: StepsImage
    gpuImage: StepsImage  # noqa: N815  # Helm's way of writing
    namespace: OptionalName


class Projects(Closed):
    """Where the project folders are."""

    path: Annotated[str, Meta(pattern="^/.+")]
    claim: OptionalName


class Workspace(Closed):
    """What runs keep; the prediction log and the labels."""

    claim: OptionalName
    predictions: OptionalName


class Secret(Closed):
    """A Secret by its name."""

    secret_name: OptionalName


class Served(Closed):
    """A release of helm/model-serving."""

    release: Name
    namespace: Name


class Registry(Closed):
    """MLflow, and who asks it."""

    url: Address
    secret_name: OptionalName


class Rollouts(Closed):
    """What is rolled out by itself: the file of --rollouts."""

    releases: dict[str, Served]
    prometheus: OptionalAddress
    by_namespace: bool
    chart: str


class Service(Closed):
    """Where alerts are posted."""

    port: Port


class NetworkPolicy(Closed):
    """Who may speak with the pods, and with whom they speak."""

    enabled: bool
    from_: list[Object] = msgspec.field(name="from")
    egress: list[Object]
    kubeflow: list[Object]
    registry: list[Object]
    prometheus: list[Object]
    api_server: list[Object]


class Route(Closed):
    """How alerts come to the trigger, where the Prometheus operator looks after Alertmanager."""

    enabled: bool
    namespaces: list[Name]
    secret_name: OptionalName
    labels: dict[str, str]


class Monitoring(Closed):
    """What watches the trigger."""

    rules: Rules
    scrape: Scrape
    route: Route
    dashboard: Dashboard


class Values(Pods, kw_only=True):
    """All of it."""

    image: Image
    annotations: dict[str, str]
    every: Annotated[int, Meta(ge=1, le=240)]
    kubeflow: Kubeflow
    projects: Projects
    workspace: Workspace
    database: Secret
    token: Secret
    registry: Registry
    notify: Secret
    rollouts: Rollouts
    tls: Secret
    service: Service
    network_policy: NetworkPolicy
    monitoring: Monitoring
    global_: Object = msgspec.field(name="global", default_factory=dict)
    """Helm's own: a chart that includes this one may set it."""


def schema() -> dict[str, Any]:
    """The JSON Schema that Helm holds values against."""
    return msgspec.json.schema(Values)
