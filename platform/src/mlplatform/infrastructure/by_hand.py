"""What only people do in Google Cloud, as commands to type: before the first run of the program, and after it, when passwords are made. Pure.

A program that could do these would have to hold rights over the billing account, or passwords.
"""

from __future__ import annotations

from collections.abc import Iterator

from mlplatform import google_names
from mlplatform.cloud import Google
from mlplatform.environment import Environment
from mlplatform.errors import ConfigError
from mlplatform.google_names import Engine
from mlplatform.plan.credentials import in_secret_manager

STATE_APIS = ("cloudresourcemanager", "serviceusage", "storage", "cloudkms", "iam")
"""Without which neither the state nor any other API can be had."""
MADE_UP = "openssl rand -hex 24 | tr -d '\\n'"


def bootstrap(environment: Environment) -> list[str]:
    """Once for each environment: the project, where Pulumi keeps what it knows, and the key that encrypts what is secret in it.

    Raises:
        ConfigError: the environment has no cloud.
    """
    cloud = _cloud(environment)
    bucket, ring = f"gs://{google_names.state_bucket(cloud)}", "millrace-state"
    at = f"--project {cloud.project} --location {cloud.region}"
    return [
        "gcloud auth login && gcloud auth application-default login",
        f"gcloud projects create {cloud.project}",
        f"gcloud projects describe {cloud.project} --format 'value(projectNumber)'  # write it into cloud.number",
        f"gcloud billing projects link {cloud.project} --billing-account {cloud.billing_account}",
        f"gcloud services enable {' '.join(f'{api}.googleapis.com' for api in STATE_APIS)} --project {cloud.project}",
        f"gcloud storage buckets create {bucket} {at} --uniform-bucket-level-access --public-access-prevention",
        f"gcloud storage buckets update {bucket} --versioning",
        f"gcloud kms keyrings create {ring} {at}",
        f"gcloud kms keys create state {at} --keyring {ring} --purpose encryption --rotation-period 90d --next-rotation-time +90d",
        f"cd platform/gke && PULUMI_BACKEND_URL={bucket} pulumi stack init {environment.name} --secrets-provider '{google_names.state_key(cloud)}'",
    ]


def secrets(environment: Environment) -> list[str]:
    """After the first run: values into the empty containers, and the same passwords into Cloud SQL. Nobody sees them.

    Typed again, a line leaves a value that is there: a new one in Secret Manager alone would lock its user out.

    Raises:
        ConfigError: the environment has no cloud.
    """
    return list(_secrets(environment, _cloud(environment)))


def _secrets(environment: Environment, cloud: Google) -> Iterator[str]:
    for credential in in_secret_manager(environment):
        if credential.startswith("alert-"):
            yield f"{_add(environment, cloud, credential)}  # paste where alerts go, then Ctrl-D"
        elif not credential.startswith("object-store-"):
            there = (
                f"gcloud secrets versions describe latest --secret {google_names.secret(environment, credential)} --project {cloud.project}"
            )
            yield f"{there} >/dev/null 2>&1 || {MADE_UP} | {_add(environment, cloud, credential)}"
    if environment.storage.kind == "gcs" and environment.secrets.kind == "secret-manager":
        account = google_names.account_email(environment, google_names.OBJECT_STORE)
        yield f"gcloud storage hmac create {account} --project {cloud.project}  # prints both halves once"
        for half in ("access", "secret"):
            yield f"{_add(environment, cloud, f'object-store-{half}')}  # paste the {half} half, then Ctrl-D"
    if environment.database.kind == "cloud-sql":
        yield _user(environment, cloud, Engine.MYSQL, "root --host %", "mysql-root")
        for name in google_names.databases(environment, Engine.POSTGRESQL):
            yield _user(environment, cloud, Engine.POSTGRESQL, name, google_names.database_user(name))


def _add(environment: Environment, cloud: Google, credential: str) -> str:
    return f"gcloud secrets versions add {google_names.secret(environment, credential)} --project {cloud.project} --data-file -"


def _user(environment: Environment, cloud: Google, engine: Engine, user: str, credential: str) -> str:
    instance = google_names.instance(environment, engine)
    if environment.secrets.kind != "secret-manager":
        return f'read -rs PASSWORD && gcloud sql users create {user} --instance {instance} --project {cloud.project} --password "$PASSWORD"'
    value = f"gcloud secrets versions access latest --secret {google_names.secret(environment, credential)} --project {cloud.project}"
    return f'gcloud sql users create {user} --instance {instance} --project {cloud.project} --password "$({value})"'


def _cloud(environment: Environment) -> Google:
    if environment.cloud is None:
        raise ConfigError(f"{environment.name} has no 'cloud': nothing is made in Google. Next: make plan-platform ENV={environment.name}")
    return environment.cloud
