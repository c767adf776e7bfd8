"""What runs in the cluster and what it stands on: storage, databases, secrets, addresses, versions, alerts, images, models, prices."""

from __future__ import annotations

from enum import StrEnum
from pathlib import PurePosixPath
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from mlplatform.addresses import place_of
from mlplatform.cloud import Clock, Name
from mlplatform.release import Number
from mlplatform.teams import Member
from mlserving.settings_file import Strict

Digest = Annotated[str, Field(pattern=r"^(sha256:[0-9a-f]{64})?$")]
Bucket = Annotated[str, Field(pattern=r"^[a-z0-9][-a-z0-9]{1,61}[a-z0-9]$")]
Host = Annotated[str, Field(pattern=r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?\.)+[a-z]{2,}$")]
Quantity = Annotated[str, Field(pattern=r"^[1-9][0-9]*(Mi|Gi|Ti)$")]
Version = Annotated[str, Field(pattern=r"^v?[0-9]+(\.[0-9]+){1,2}([-+.][0-9A-Za-z.-]+)?$")]


class Buckets(Strict):
    """By purpose. Each component may reach its own and no other."""

    artifacts: Bucket
    """What pipeline steps hand to each other."""
    workspace: Bucket
    """What runs keep between them: rows read before, sealed test sets, accepted schemas. Each namespace of a team has a folder of its own."""
    models: Bucket
    """The model store: runs publish into it, and servers copy from it."""
    predictions: Bucket
    """The prediction log and labels."""
    mlflow: Bucket
    """Artifacts of runs in the registry."""
    backups: Bucket
    """Dumps of in-cluster databases, exports of Cloud SQL."""


class Storage(Strict):
    """Where files lie."""

    kind: Literal["gcs", "in-cluster"]
    """`gcs`: Google Cloud Storage; `in-cluster`: SeaweedFS and claims, for one machine."""
    buckets: Buckets | None = None
    """For `gcs`."""
    location: str = ""
    """Of the buckets; empty is the region."""
    artifact_days: Annotated[int, Field(ge=8)] = 180
    """Artifacts of steps are deleted after so many days, in a bucket: of the store in the cluster nobody deletes any. Models, registry and labels are kept. Runs take
    artifacts from each other within a week."""
    version_days: Annotated[int, Field(ge=1)] = 30
    """What was overwritten or deleted can be brought back for so long. Of models and workspaces it is what was deleted, for 7 to 90 days."""
    claim: Quantity = "20Gi"
    """Of each volume, for `in-cluster`."""
    shared_class: Annotated[str, Field(pattern=r"^([a-z0-9]([-.a-z0-9]*[a-z0-9])?)?$")] = ""
    """For `in-cluster` on several nodes: a storage class whose volumes pods of all nodes can write at a time (NFS, CephFS). The volumes of teams are of it. Empty: the
    cluster's usual class, whose volumes one node has at a time."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.kind == "gcs") != (self.buckets is not None):
            raise ValueError("'gcs' names its buckets in 'buckets', and 'in-cluster' has none")
        if self.shared_class and self.buckets is not None:
            raise ValueError("'shared_class' is for 'in-cluster': with 'gcs' the volumes of teams are buckets")
        return self


class Backups(Strict):
    """Of the databases."""

    at: Clock = "03:00"
    """UTC."""
    keep: Annotated[int, Field(ge=1, le=365)] = 14
    """So many of them; with Cloud SQL the log is kept for seven days too, so that any moment of those can be restored."""


class Database(Strict):
    """MySQL for Kubeflow Pipelines, PostgreSQL for the registry, the review queue, the trigger and Grafana."""

    kind: Literal["cloud-sql", "in-cluster"]
    mysql: Literal["MYSQL_8_0", "MYSQL_8_4"] = "MYSQL_8_4"
    postgresql: Literal["POSTGRES_15", "POSTGRES_16", "POSTGRES_17"] = "POSTGRES_17"
    tier: str = "db-custom-2-7680"
    """Of each of the two, for `cloud-sql`."""
    high_availability: bool = False
    """A second zone stands by, for `cloud-sql`; doubles its price."""
    disk_gb: Annotated[int, Field(ge=10, le=65536)] = 20
    backups: Backups = Backups()


class Secrets(Strict):
    """Where passwords and tokens come from. None stands in this file, in a chart's values or in git."""

    kind: Literal["files", "secret-manager", "existing"]
    """`files`: one file for each, in a folder of the machine that deploys; `secret-manager`: Google Secret Manager, by External Secrets;
    `existing`: somebody else makes the Secrets that the plan names (Vault, sealed secrets), and a deployment looks that they are there."""
    folder: str = ""
    """For `files`: relative to the environment file, and ignored by git."""
    generate: bool = False
    """For `files`: make what is missing by chance, as a laptop wants it. Elsewhere a missing secret is an error."""
    prefix: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]*$")] = "millrace-"
    """For `secret-manager`: begins the name of each."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.kind == "files" and not self.folder:
            raise ValueError("'files' needs 'folder'")
        if self.kind != "files" and (self.folder or self.generate):
            raise ValueError("'folder' and 'generate' are for kind 'files'; elsewhere secrets are filled by whoever may")
        if PurePosixPath(self.folder).is_absolute():
            raise ValueError("'folder' is relative to the environment file")
        return self


class Access(Strict):
    """Under which names people reach the pages, and what asks them who they are."""

    domain: Host | None = None
    """Pages are `pipelines.`, `mlflow.`, `grafana.`, `gpus.` and `review.` of it. Without one they are reached by port-forward only."""
    sign_in: Literal["none", "iap"] = "none"
    """`iap`: Google's Identity-Aware Proxy in front of every page; `none`: no page leaves the cluster."""
    admins: tuple[Annotated[str, Field(pattern=r"^(user|group):[^\s@:]+@[^\s@:]+\.[^\s@:]+$")], ...] = ()
    """The infra team: may deploy, and sees everything."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.domain is None) != (self.sign_in == "none"):
            raise ValueError("a domain needs a 'sign_in' in front of it, and a sign-in a domain")
        return self


class Registry(Strict):
    """Who sees what in the registry. Each team writes its own models and runs and nobody else's; its people do by their roles (`teams`)."""

    others: Literal["hidden", "read"] = "hidden"
    """What a team sees of the other teams' models, runs and artifacts: that there is nothing, or all of it."""
    auditors: tuple[Member, ...] = ()
    """Who reads every team's, and writes nothing."""


class Versions(Strict):
    """What is released, by us and by others, pinned. A change here is an upgrade."""

    millrace: Number | None = None
    """The release that this environment is to be at: a repository that is another one refuses to touch it. Null, for stage development, takes what comes."""
    kubernetes: Annotated[str, Field(pattern=r"^1\.[0-9]{2}$")] = "1.36"
    """The minor version that charts are rendered for and the cluster must have at least."""
    kubeflow_pipelines: Literal["2.17.0"] = "2.17.0"
    """`k8s/kubeflow-pipelines` patches its objects by name, so another version is a change there."""
    cert_manager: Version | None = "v1.21.2"
    """Null leaves it out: nothing of ours needs it, for the GPU queue's webhook signs for itself."""
    external_secrets: Version = "2.9.0"
    prometheus_stack: Version = "88.5.3"
    """The chart kube-prometheus-stack: operator, Prometheus, Alertmanager, Grafana."""
    grafana: Version = "12.11.1"
    """The chart grafana, where Prometheus is Google's."""
    mlflow: Version = "3.17.2"


class Severity(StrEnum):
    """Of an alert, as our rules say it."""

    CRITICAL = "critical"
    """Wakes somebody."""
    WARNING = "warning"
    """Is for the next working hour."""
    INFO = "info"


class Receiver(Strict):
    """Who is told of alerts. The address, key or password is a secret: `alert-NAME`."""

    kind: Literal["slack", "pagerduty", "email", "webhook"]
    severities: Annotated[tuple[Severity, ...], Field(min_length=1)] = (Severity.CRITICAL, Severity.WARNING)
    to: str = ""
    """A channel (`#ml-alerts`) or a mail address."""
    sender: str = ""
    """Of mail, who also signs in to the mail server; its password is the secret."""
    smarthost: Annotated[str, Field(pattern=r"^([^\s:]+:[0-9]+)?$")] = ""
    """Of mail: the server, `host:port`."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        needed = {"slack": ("to",), "email": ("to", "sender", "smarthost")}.get(self.kind, ())
        if missing := [field for field in needed if not getattr(self, field)]:
            raise ValueError(f"{self.kind} needs {', '.join(map(repr, missing))}")
        return self


class Monitoring(Strict):
    """Who scrapes, keeps and draws."""

    kind: Literal["operator", "google", "none"] = "operator"
    """`operator`: the Prometheus operator in the cluster; `google`: Google Cloud Managed Service for Prometheus; `none`: nobody."""
    retention_days: Annotated[int, Field(ge=1, le=365)] = 30
    """Of the operator's Prometheus; Google keeps 24 months."""
    disk: Quantity = "50Gi"
    receivers: dict[Name, Receiver] = Field(default={})
    runbooks: Annotated[str, Field(pattern=r"^(https://.*[^/])?$")] = ""
    """Where docs/runbooks is to be read; every alert links to it."""
    prometheus: Annotated[str, Field(pattern=r"^(https?://\S+[^/\s])?$")] = ""
    """Who is asked how a canary does, where a trigger rolls out (`models.NAME.rollout`). Empty: the operator's own. Google's service is asked through its query
    front end, which is yours to put into the namespace `monitoring`: `http://frontend.monitoring.svc:9090`. Triggers are let out to the namespace in
    `http://NAME.NAMESPACE.svc:PORT`, to an address (`http://10.4.0.7:9090`), or to a name outside on port 443."""

    @field_validator("prometheus")
    @classmethod
    def _leads_somewhere(cls, value: str) -> str:
        if value:
            place_of(value)
        return value

    @property
    def asked(self) -> str:
        """That address; empty where there is none."""
        return self.prometheus or ("http://prometheus-operated.monitoring.svc:9090" if self.kind == "operator" else "")


class Deployable(StrEnum):
    """What we build an image of."""

    GPU_QUEUE = "gpu-queue"
    SERVING = "serving"
    MODEL_SERVER = "model-server"
    TRIGGER = "trigger"
    STEPS = "steps"
    STEPS_GPU = "steps-gpu"
    MLFLOW = "mlflow"


def deployables(*, gpus: bool) -> list[Deployable]:
    """Those that there is a use for: the large one for GPUs only where there are any."""
    return [one for one in Deployable if one is not Deployable.STEPS_GPU or gpus]


class Images(Strict):
    """Where our images are."""

    registry: Annotated[str, Field(pattern=r"^[a-z0-9.:/_-]*[a-z0-9]$")]
    """Begins the name of each: `europe-west4-docker.pkg.dev/PROJECT/millrace`."""
    tag: str = ""
    """For those without a digest. Empty is the charts' own version."""
    digests: dict[Deployable, Digest] = Field(default={})
    """What was tested is what runs. `make images` writes them."""


class ServedModel(Strict):
    """A model that is served: one release of helm/model-serving, in a namespace of its team. Rollouts change version and weights, never this file."""

    team: Name
    namespace: Name
    """Of the team."""
    first_version: Annotated[int, Field(ge=1)] = 1
    """With which the release begins; a rollout's choice is kept afterwards."""
    replicas: Annotated[int, Field(ge=1, le=100)] = 2
    cpu: Annotated[str, Field(pattern=r"^[1-9][0-9]*m?$")] = "500m"
    memory: Quantity = "1Gi"
    gpus: Annotated[int, Field(ge=0, le=16)] = 0
    gpu_type: Name | None = None
    features: tuple[str, ...] = ()
    """Inputs that the prediction log keeps. No personal data that is not needed."""
    log_share: Annotated[float, Field(ge=0, le=1)] = 0.1
    monitor: bool = True
    review: bool = False
    """A page on which people confirm or correct predictions."""
    review_audience: Annotated[str, Field(pattern=r"^(/projects/[0-9]+/global/backendServices/[0-9]+)?$")] = ""
    """For whom IAP signs, for `review`: known once the entrance is there, so review is switched on by the second deployment."""
    rollout: Literal["by-hand", "automatic"] = "by-hand"
    """`automatic`: the team's trigger may upgrade the release, and rolls out what its runs bring where the project says so, too (`retraining.rollout`)."""
    callers: tuple[Name, ...] = ()
    """Namespaces that ask for predictions, beside the model's own. Nobody else reaches it."""


class Retraining(Strict):
    """A trigger for each team: alerts, schedules and people start training through it. It takes the steps image by digest only."""

    enabled: bool = True
    projects_claim: str = ""
    """A claim with the project folders; empty: they are in the trigger's image."""


class Prices(Strict):
    """What things cost, for the estimate that stands under a plan. Yours: list prices change, and so do discounts."""

    as_of: str = ""
    """When somebody last looked."""
    currency: Annotated[str, Field(pattern="^[A-Z]{3}$")] = "USD"
    machine_hour: dict[str, Annotated[float, Field(ge=0)]] = Field(default={})
    """By machine type, on demand, its GPUs included where they are built in."""
    gpu_hour: dict[str, Annotated[float, Field(ge=0)]] = Field(default={})
    """By GPU type, for machines that take GPUs as an extra."""
    share: dict[Literal["spot", "flex-start", "reservation"], Annotated[float, Field(ge=0, le=2)]] = Field(default={})
    """Of the price on demand."""
    database_month: Annotated[float, Field(ge=0)] = 0.0
    """Of one database instance without high availability."""
    cluster_month: Annotated[float, Field(ge=0)] = 0.0
    """GKE's fee for the control plane."""
    disk_gb_month: Annotated[float, Field(ge=0)] = 0.0
