"""What may stand in the values of `helm/model-serving`: modelled here, once; `chart_values.py` writes the chart's schema and its page.

The gateway's own settings are not repeated: their schema comes from the classes that read gateway.yaml. Docstrings become the page.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from mlserving.gateway.settings import Limits, Log, Spool

MOVED = {
    "image": "server.image (the model server) or gateway.image (ours)",
    "modelName": "model.name",
    "modelVersion": "tracks.stable.version",
    "replicaCount": "tracks.stable.replicas",
    "resources": "tracks.stable.resources",
    "autoscaling": "tracks.stable.autoscaling",
    "gateway.settings.models": "model.name and tracks",
    "store.pvc": "store.claim, with store.kind: claim",
    **{f"tracks.{track}.image": "server.image: every track runs the same server" for track in ("stable", "canary", "shadow")},
}
"""Spellings that are refused, and what to write instead: other charts' common ones, and those that were ours once."""

OptionalName = Annotated[str, Field(pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$")]
Digest = Annotated[str, Field(pattern=r"^(sha256:[0-9a-f]{64})?$")]
ContentDigest = Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]
Percent = Annotated[float, Field(ge=0, le=100)]
Replicas = Annotated[int, Field(ge=1, le=1000)]
Seconds = Annotated[int, Field(ge=0, le=3600)]
Count = Annotated[int, Field(ge=1)]
ManyOrNone = Annotated[int, Field(ge=0)]
Bytes = Annotated[str, Field(pattern=r"^([0-9]+(\.[0-9]+)?(Ki|Mi|Gi|Ti)?)?$")]
Folder = Annotated[str, Field(pattern=r"^([^/.][^/]*(/[^/.][^/]*)*)?$")]
Header = Annotated[str, Field(pattern=r"^[a-z0-9-]*$")]
Span = Annotated[str, Field(pattern="^[1-9][0-9]*[mhdw]$")]
Object = dict[str, Any]
"""Kubernetes' own; the API server looks at it."""


class Closed(BaseModel):
    """A name that is not modelled is refused: a misspelt value would otherwise do nothing, silently."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, populate_by_name=True, use_attribute_docstrings=True)


class Model(Closed):
    """What is served."""

    name: Annotated[str, Field(pattern=r"^([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?$")]
    """The model's name, in the store and in requests. Required."""


class Image(Closed):
    """Which image, by tag or by digest."""

    repository: str
    """Your registry's name for it."""
    tag: str
    """Empty is what the chart was tested with."""
    digest: Digest
    """`sha256:…`, instead of a tag: the image then cannot change under you."""
    pull_policy: Literal["IfNotPresent", "Always", "Never"]
    """When the node asks the registry."""


class Gpu(Closed):
    """What accelerator each pod gets."""

    count: ManyOrNone
    """GPUs for each pod; 0 is none."""
    resource: Annotated[str, Field(pattern=r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$")]
    """What the device plugin calls them."""
    accelerator: str
    """GKE's name of the kind, for example nvidia-l4; empty is any."""


class Autoscaling(Closed):
    """How many pods there are, by load."""

    enabled: bool
    """Let a HorizontalPodAutoscaler say, instead of `replicas`."""
    min: Replicas
    """At least so many."""
    max: Replicas
    """At most so many."""
    cpu: Annotated[int, Field(ge=0, le=1000)]
    """Percent of the requested CPU to aim at; 0 does not look at it."""
    in_flight: ManyOrNone
    """Requests under way in each pod to aim at; 0 does not look at them. Needs an adapter that serves external metrics."""


class Track(Closed):
    """A place from which the model answers."""

    enabled: bool
    """Whether it is there."""
    version: ManyOrNone
    """The version that it serves. Required where it is enabled."""
    digest: ContentDigest
    """What that version must be: `python -m mlserving digest`. Empty takes what the store holds."""
    weight: Percent
    """Percent of the requests that it answers; of the shadow, percent that are copied to it. Stable and canary add up to 100."""
    replicas: Replicas
    """Pods."""
    resources: Object
    """Of the model server."""
    gpu: Gpu
    autoscaling: Autoscaling


class Tracks(Closed):
    """All three."""

    stable: Track
    canary: Track
    shadow: Track


class Claim(Closed):
    """A PersistentVolumeClaim that is there."""

    name: OptionalName
    """Its name."""
    path: Folder
    """The folder in it; empty is all of it."""


class Bucket(Closed):
    """A bucket of Google Cloud Storage."""

    name: str
    """Without gs://."""
    path: Folder
    """The folder in it; empty is all of it."""
    mount_options: str
    """Of gcsfuse, where it is mounted."""


class LocalCopy(Closed):
    """The volume of each pod that its version is copied to."""

    medium: Literal["", "Memory"]
    """`Memory` keeps it in memory, and counts as the pod's."""
    size_limit: Bytes
    """The pod is evicted above it; empty is the node's disk."""


class Store(Closed):
    """Where versions are published."""

    kind: Literal["claim", "gcs", "gcs-copy"]
    """`claim`: a PersistentVolumeClaim; `gcs`: a bucket, mounted by gcsfuse's CSI driver; `gcs-copy`: the same, read over Google's API."""
    claim: Claim
    bucket: Bucket
    local: LocalCopy
    resources: Object
    """Of the container that fetches."""


class Batching(Closed):
    """TensorFlow Serving puts requests together."""

    enabled: bool
    """Worth it on a GPU; costs up to the timeout in latency."""
    max_batch_size: Count
    """Rows of a batch."""
    timeout_micros: ManyOrNone
    """How long a batch waits to fill."""
    max_enqueued_batches: Count
    """More are refused."""
    threads: Count
    """Batches under way at a time."""
    allowed_batch_sizes: list[Count]
    """Sizes that batches are padded to, ascending; the last is maxBatchSize. Empty is any."""


class Probes(Closed):
    """When the kubelet believes in a model server."""

    startup_seconds: Count
    """How long loading and warming up may take."""
    period_seconds: Count
    """Between questions."""
    timeout_seconds: Count
    """An answer may take."""


class ServiceAccount(Closed):
    """Who the pods are."""

    annotations: dict[str, str]
    """For example iam.gke.io/gcp-service-account."""


class Placement(Closed):
    """Where pods run."""

    priority_class_name: OptionalName
    """What is evicted last."""
    node_selector: dict[str, str]
    """Labels that a node must have."""
    tolerations: list[Object]
    """Taints that do not matter."""
    annotations: dict[str, str]
    """Of the pods, for example for collectors that find targets by them."""


class Server(Placement):
    """The model servers, of every track."""

    kind: Literal["tensorflow", "millrace"]
    """TensorFlow Serving, or our own server with the same API."""
    image: Image
    threads: Count
    """Requests that our own server answers at a time."""
    warmup: bool
    """Replay the version's own requests before it takes traffic. Our own server always does."""
    batching: Batching
    more_arguments: list[str]
    """More flags of TensorFlow Serving."""
    probes: Probes
    drain_seconds: Seconds
    """How long a pod that goes still takes requests, until nobody sends any."""
    grace_seconds: Seconds
    """How long requests under way may take after that."""
    service_account: ServiceAccount


class Service(Closed):
    """Where callers ask."""

    type: Literal["ClusterIP", "LoadBalancer", "NodePort"]
    annotations: dict[str, str]
    """For example networking.gke.io/load-balancer-type: Internal."""


class Settings(Closed):
    """What gateway.yaml says beside the tracks (docs/reference/gateway.md)."""

    sticky: Header
    """A header in lower case whose value decides the track. Empty: the prediction id decides."""
    deadline: Annotated[float, Field(gt=0)]
    """Seconds that an answer may take where the caller names no deadline."""
    log: Log
    """What is kept of predictions."""
    limits: Limits
    """How much is let in."""
    spool: Spool
    """Between gateway and recorder."""


class Predictions(Closed):
    """Where the recorder writes the prediction log."""

    kind: Literal["none", "claim", "gcs"]
    """`none`: a volume of the pod, gone with it; `claim`: a PersistentVolumeClaim that all replicas may write; `gcs`: a bucket, by gcsfuse."""
    claim: Claim
    bucket: Bucket
    journal: Claim
    """For labels on their way into the log: on a file system that locks. Without a name, the predictions' claim, or beside a bucket a volume of each pod."""


class Gateway(Placement):
    """The proxy in front of the tracks."""

    replicas: Replicas
    """Pods."""
    image: Image
    resources: Object
    """Of a pod, the recorder's process included."""
    autoscaling: Autoscaling
    settings: Settings
    predictions: Predictions
    drain_seconds: Seconds
    """How long a pod that goes still takes requests, until nobody sends any."""
    grace_seconds: Seconds
    """How long requests under way may take after that."""
    service: Service
    service_account: ServiceAccount
    more_arguments: list[str]
    """More options of `python -m mlserving gateway`."""


class Monitor(Placement):
    """Looks at the prediction log: drift, quality, golden requests."""

    enabled: bool
    """Needs a log that outlives the pods: gateway.predictions.kind claim or gcs."""
    every: Span
    """From the end of a look to the next."""
    since: Span
    """What a look is about: so long a time up to now."""
    by: list[str]
    """Columns by whose values it looks too, beside those that the version names."""
    golden: bool
    """Ask each track's golden requests too."""
    resources: Object
    service_account: ServiceAccount
    more_arguments: list[str]
    """More options of `python -m mlserving monitor`."""


class SecretKey(Closed):
    """A key of a Secret that is there."""

    name: OptionalName
    """The Secret's name."""
    key: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")]
    """Which of its keys."""


class Database(Closed):
    """Where the review queue lies."""

    kind: Literal["sqlite", "postgresql"]
    """`sqlite`: a file in a claim, for one replica; `postgresql`: a server."""
    claim: Claim
    secret: SecretKey


class Access(Closed):
    """Who may review."""

    kind: Literal["users", "proxy", "iap"]
    """`users`: a file of names and hashed tokens; `proxy`: a header of something that signs people in; `iap`: Google's Identity-Aware Proxy, verified."""
    users: SecretKey
    leads: list[str]
    """Who of the people that a proxy or IAP names are leads."""
    header: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]+$")]
    """In which a proxy names people."""
    secret: SecretKey
    addresses: list[str]
    """From which a proxy connects: addresses or networks."""
    audience: str
    """For whom IAP signs, /projects/NUMBER/global/backendServices/NUMBER."""


class Fill(Closed):
    """The CronJob that chooses what people look at."""

    schedule: Annotated[str, Field(pattern=r"^(\S+ ){4}\S+$")]
    """Five fields."""
    time_zone: Annotated[str, Field(min_length=1)]
    """An IANA name."""
    keep_days: ManyOrNone
    """What people saw so many days ago is erased from the queue; 0 keeps it."""
    resources: Object
    more_arguments: list[str]
    """More options of `python -m mlserving review fill`."""


class Review(Placement):
    """The page on which people confirm or correct predictions."""

    enabled: bool
    """Needs a log that outlives the pods: gateway.predictions.kind claim or gcs."""
    replicas: Replicas
    """Pods; more than one needs PostgreSQL."""
    resources: Object
    public_url: Annotated[str, Field(pattern=r"^(https?://[^/]+)?$")]
    """Under which people reach it."""
    database: Database
    sessions: SecretKey
    access: Access
    fill: Fill
    service: Service
    service_account: ServiceAccount
    more_arguments: list[str]
    """More options of `python -m mlserving review serve`."""


class NetworkPolicy(Closed):
    """Who may speak with our pods, and with whom they speak."""

    enabled: bool
    """Takes effect where the cluster enforces NetworkPolicy."""
    callers_from: list[Object]
    """Who asks for predictions: peers of a NetworkPolicy. Empty is everybody."""
    reviewers_from: list[Object]
    """Who reaches the review page. Empty is everybody."""
    metrics_from: list[Object]
    """Who scrapes. Empty is nobody."""
    api_server: list[Object]
    """Where the API server is. Empty is anywhere on ports 443 and 6443."""
    store: list[Object]
    """Rules of egress for who fetches from a bucket. Empty is anywhere on port 443, and the metadata server."""
    database: list[Object]
    """Rules of egress to the review queue's PostgreSQL. Empty is anywhere on port 5432."""
    more_egress: list[Object]
    """More rules of the gateway."""


class Rules(Closed):
    """Alert rules."""

    enabled: bool
    labels: dict[str, str]
    """What an operator selects rules by."""
    runbooks: Annotated[str, Field(pattern="^(https?://.*[^/])?$")]
    """Where the runbooks are to be read. Empty: paths in the repository."""


class Dashboard(Closed):
    """The Grafana dashboard."""

    enabled: bool
    labels: dict[str, str]
    """What Grafana's sidecar finds it by."""


class Monitoring(Closed):
    """What watches it."""

    flavour: Literal["none", "operator", "gmp"]
    """`operator`: PodMonitor and PrometheusRule; `gmp`: Google's PodMonitoring and Rules."""
    interval: Annotated[str, Field(pattern="^[1-9][0-9]*(s|m)$")]
    """Between scrapes."""
    labels: dict[str, str]
    """What an operator selects monitors by."""
    rules: Rules
    dashboard: Dashboard


class GoldenTest(Closed):
    """What `helm test` asks."""

    tolerance: Annotated[float, Field(ge=0)]
    """Of numbers, relative to what is expected where that is above 1."""
    most: Count
    """Requests."""


class Values(Closed):
    """All of it."""

    model: Model
    tracks: Tracks
    store: Store
    server: Server
    gateway: Gateway
    monitor: Monitor
    review: Review
    network_policy: NetworkPolicy
    monitoring: Monitoring
    test: GoldenTest
    pull_secrets: list[Object]
    """For a registry that asks who you are: [{name: SECRET}]."""
    rollout: Object
    """The state of a rollout, which `millrace rollout` keeps here. The chart does not look at it."""
    global_: Annotated[Object, Field(alias="global")] = {}
    """Helm's own: a chart that includes this one may set it."""


def schema() -> dict[str, Any]:
    """The JSON Schema that Helm holds values against."""
    return Values.model_json_schema(by_alias=True)
