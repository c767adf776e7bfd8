"""What may stand in the values of `helm/gpu-queue`: modelled here, once; `chart_values.py` writes the chart's values.schema.json from it.

values.yaml holds the defaults and says why one would change them; a test holds that it has these fields and no others. The controller's own
settings are not repeated: their schema comes from the class that reads them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from gpuqueue.controller.settings import Settings

Name = Annotated[str, Meta(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
OptionalName = Annotated[str, Meta(pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$")]
Group = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9:@._/-]*$")]
ResourcePrefix = Annotated[str, Meta(pattern=r"^[a-z0-9.-]+/[A-Za-z0-9._-]*$")]
Digest = Annotated[str, Meta(pattern=r"^(sha256:[0-9a-f]{64})?$")]
Port = Annotated[int, Meta(ge=1, le=65535)]
Hours = Annotated[str, Meta(pattern=r"^[1-9][0-9]*h$")]
Replicas = Annotated[int, Meta(ge=1, le=10)]
Object = dict[str, Any]
"""Kubernetes' own; the API server looks at it."""


class Closed(Struct, forbid_unknown_fields=True, rename="camel"):
    """A name that is not modelled is refused: a misspelt value would otherwise do nothing, silently."""


class Image(Closed):
    """Which image, by tag or by digest."""

    repository: Annotated[str, Meta(min_length=1)]
    tag: str
    digest: Digest
    pull_policy: Literal["IfNotPresent", "Always", "Never"]
    pull_secrets: list[Object]


class Pods(Closed):
    """What the pods of the controller and of the webhook have in common."""

    replicas: Replicas
    resources: Object
    priority_class_name: OptionalName
    node_selector: dict[str, str]
    tolerations: list[Object]


class Tls(Closed):
    """Of the page and the API."""

    secret_name: OptionalName


class Controller(Pods):
    """The Deployment that decides."""

    annotations: dict[str, str]
    tls: Tls
    settings: Settings


class CertManager(Closed):
    """Whether it looks after the webhook's certificate."""

    enabled: bool
    issuer_ref: Object


class Certificates(Closed):
    """How long the webhook's certificates and their authorities live."""

    authority_life: Hours
    life: Hours
    renew_before: Hours


class Webhook(Pods):
    """The Deployment that sets the gate where the API server cannot."""

    port: Port
    certificates: Certificates
    cert_manager: CertManager


class Service(Closed):
    """Where the page and the API are reached."""

    port: Port


class NetworkPolicy(Closed):
    """Who may speak with our pods, and with whom they speak."""

    enabled: bool
    api_from: list[Object]
    metrics_from: list[Object]
    api_server: list[Object]
    more_egress: list[Object]


class Rules(Closed):
    """Alert rules."""

    enabled: bool
    kind: Literal["PrometheusRule", "Rules"]
    labels: dict[str, str]
    runbooks: Annotated[str, Meta(pattern="^(https?://.*[^/])?$")]


class Scrape(Closed):
    """Who scrapes the replicas."""

    enabled: bool
    kind: Literal["PodMonitor", "PodMonitoring"]
    interval: Annotated[str, Meta(pattern="^[1-9][0-9]*(s|m)$")]
    labels: dict[str, str]


class ScrapeOfPort(Scrape):
    """Who scrapes them, and where: metrics have a port of their own."""

    port: Annotated[str, Meta(pattern="^[a-z0-9]([-a-z0-9]{0,13}[a-z0-9])?$")]


class Dashboard(Closed):
    """The Grafana dashboard."""

    enabled: bool
    labels: dict[str, str]


class Monitoring(Closed):
    """What watches the controller."""

    rules: Rules
    scrape: ScrapeOfPort
    dashboard: Dashboard


class Values(Closed, kw_only=True):
    """All of it."""

    image: Image
    break_glass_group: Group
    service_account: Name
    gpu_resources: Annotated[list[ResourcePrefix], Meta(min_length=1)]
    gate_resource_claims: bool
    may_evict: bool
    admission: Literal["auto", "policy", "webhook"]
    controller: Controller
    webhook: Webhook
    service: Service
    network_policy: NetworkPolicy
    monitoring: Monitoring
    global_: Object = msgspec.field(name="global", default_factory=dict)
    """Helm's own: a chart that includes this one may set it."""


def schema() -> dict[str, Any]:
    """The JSON Schema that Helm holds values against."""
    return msgspec.json.schema(Values)
