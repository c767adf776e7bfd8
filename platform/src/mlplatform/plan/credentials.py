"""Which Secrets the platform needs, where each is used, and which credentials stand in it. No value is known here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mlplatform import google_names
from mlplatform.environment import Environment
from mlplatform.google_names import Engine, database_user
from mlplatform.plan import alerting, registry_rights
from mlplatform.plan.steps import Credential, SecretObject

STORE = "mlpipeline-minio-artifact"
"""The keys of the object store that speaks S3, by the name that Kubeflow Pipelines knows."""

_OLD_PASSWORDS = 60
"""Seconds for which the registry may take a password that was changed."""


def mysql(environment: Environment) -> str:
    """Where Kubeflow's database is."""
    return "mysql" if environment.database.kind == "in-cluster" else google_names.host(Engine.MYSQL)


def postgresql(environment: Environment) -> str:
    """Where everybody else's is."""
    return "postgresql.databases.svc" if environment.database.kind == "in-cluster" else google_names.host(Engine.POSTGRESQL)


def databases(environment: Environment) -> list[str]:
    """The databases of PostgreSQL, each with a user of its name."""
    return list(google_names.databases(environment, Engine.POSTGRESQL))


def in_secret_manager(environment: Environment) -> list[str]:
    """The credentials that are kept there, where that is where secrets come from; `google_names.secret` says under which names."""
    if environment.secrets.kind != "secret-manager":
        return []
    return list(dict.fromkeys(credential.name for each in secret_objects(environment) for credential in each.sources.values()))


def secret_objects(environment: Environment) -> Iterator[SecretObject]:
    """All of them."""
    yield _object("kubeflow", "mysql-secret", {"username": "root", "password": "{{ .password }}"}, {"password": "mysql-root"})
    yield from _object_store(environment)
    yield from _registry(environment)
    if environment.database.kind == "in-cluster":
        yield _object("databases", "postgresql-admin", {"password": "{{ .password }}"}, {"password": "postgresql-admin"})
        names = databases(environment)
        yield _object("databases", "postgresql-users", {name: f"{{{{ .{name} }}}}" for name in names}, {n: database_user(n) for n in names})
    if environment.retraining.enabled:
        yield from _triggers(environment)
    yield from _review(environment)
    if environment.monitoring.kind != "none":
        data = {"admin-user": "admin", "admin-password": "{{ .password }}", "database-password": "{{ .database }}"}
        # Nobody can make these up but the tokens of triggers, which are the same as theirs.
        told = {name: Credential(name=c, length=0 if c.startswith("alert-") else 32) for name, c in alerting.sources(environment).items()}
        place, name = alerting.GOOGLE if environment.monitoring.kind == "google" else alerting.OPERATOR
        yield SecretObject(namespace=place, name=name, data={"alertmanager.yaml": alerting.configuration(environment)}, sources=told)
        yield _object("monitoring", "grafana-admin", data, {"password": "grafana-admin", "database": database_user("grafana")})


def _object_store(environment: Environment) -> Iterator[SecretObject]:
    data = {"accesskey": "{{ .access }}", "secretkey": "{{ .secret }}"}
    yield _object("kubeflow", STORE, data, {"access": "object-store-access", "secret": "object-store-secret"})
    if environment.storage.kind == "in-cluster":
        for team in environment.teams.values():
            for namespace in team.namespaces:
                yield _object(namespace, STORE, data, {"access": "object-store-access", "secret": "object-store-secret"})


def _registry(environment: Environment) -> Iterator[SecretObject]:
    yield _object("mlflow", "mlflow-database", {"url": _url(environment, "mlflow", "password")}, {"password": database_user("mlflow")})
    settings = "\n".join(
        [
            "[mlflow]",
            # Who has no role in a workspace sees nothing of it; roles are written by the step `registry-rights`.
            "default_permission = NO_PERMISSIONS",
            "grant_default_workspace_access = false",
            # A password is hashed anew for each check, several times a request. So long, another replica still takes one that was changed.
            f"auth_cache_ttl_seconds = {_OLD_PASSWORDS}",
            f"database_uri = {_url(environment, 'mlflow_auth', 'database')}",
            f"admin_username = {registry_rights.ADMIN}",
            "admin_password = {{ .admin }}",
            "authorization_function = mlflow.server.auth:authenticate_request_basic_auth",
            "",
        ]
    )
    data = {"basic_auth.ini": settings, "session": "{{ .session }}", "password": "{{ .admin }}"}
    yield _object(
        "mlflow", "mlflow-auth", data, {"database": database_user("mlflow_auth"), "admin": "mlflow-admin", "session": "mlflow-session"}
    )
    for account in registry_rights.accounts(environment):
        told = {"url": registry_rights.URL, "username": account.user, "password": "{{ .password }}", "workspace": account.workspace}
        for kept in account.kept_in:
            yield _object(kept.namespace, kept.name, told, {"password": account.credential})


def _triggers(environment: Environment) -> Iterator[SecretObject]:
    for team, about in environment.teams.items():
        namespace, database = about.namespaces[0], f"retraining_{_word(team)}"
        url = {"url": _url(environment, database, "password")}
        yield _object(namespace, "retraining-database", url, {"password": database_user(database)})
        yield _object(namespace, "retraining-token", {"token": "{{ .token }}"}, {"token": f"retraining-token-{team}"})


def _review(environment: Environment) -> Iterator[SecretObject]:
    for name, model in environment.models.items():
        if model.review:
            data = {"url": _url(environment, "review", "database"), "secret": "{{ .session }}"}
            yield _object(model.namespace, f"{name}-review", data, {"database": database_user("review"), "session": "review-session"})
            if environment.access.sign_in == "none":
                people = Credential(name="review-users", length=0)
                yield SecretObject(
                    namespace=model.namespace, name=f"{name}-reviewers", data={"users.json": "{{ .users }}"}, sources={"users": people}
                )


def _object(namespace: str, name: str, data: Mapping[str, str], sources: Mapping[str, str]) -> SecretObject:
    return SecretObject(namespace=namespace, name=name, data=data, sources={var: Credential(name=c) for var, c in sources.items()})


def _url(environment: Environment, database: str, variable: str) -> str:
    return f"postgresql+psycopg://{database}:{{{{ .{variable} }}}}@{postgresql(environment)}:5432/{database}"


def _word(name: str) -> str:
    return name.replace("-", "_")
