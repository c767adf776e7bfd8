"""Which version of a model is the champion, as MLflow's aliases say: the one place that moves them.

`challenger` is blessed and answers nobody yet, `champion` answers, `previous` is the champion before it. `publish` makes a version the
champion at once where the project's track is stable; where it is canary, the rollout does when the version has taken over. Importing MLflow
takes seconds, so it is imported on the first call.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlserving.errors import ConfigError, Unavailable

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
ROLLED_BACK = "rolled_back"
"""Tag of a version that had taken over and was taken back: when and why."""
RUN = "run_id"
"""Tag of a version: the pipeline run that made it."""
_MOST_VERSIONS = 10_000
_WHO, _FORBIDDEN = 401, 403
_STATUS = {"UNAUTHENTICATED": _WHO, "CUSTOMER_UNAUTHORIZED": _WHO, "PERMISSION_DENIED": _FORBIDDEN}


@functools.cache
def client_at(uri: str) -> Any:
    """MLflow's client, one a process and address."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # a registry on one machine calls nobody
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow.tracking import MlflowClient
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def is_there(uri: str) -> bool:
    """Whether looking would not create an empty database."""
    return not uri.startswith("sqlite:") or Path(uri.removeprefix("sqlite:///")).is_file()


def aliases_of(client: Any, model: str) -> dict[str, int]:
    """Which version carries which alias; empty where the model is not registered.

    It is searched for: a server with permissions refuses a model that nobody has registered as it refuses one that is somebody else's.
    """
    found = client.search_registered_models(f"name='{model}'", max_results=1)
    return {name: int(version) for each in found for name, version in each.aliases.items()}


def promote(client: Any, model: str, version: int) -> None:
    """Move `champion` to `version` and `previous` to the champion before it; `challenger` has done its work."""
    before = aliases_of(client, model)
    if before.get(CHAMPION, version) != version:
        client.set_registered_model_alias(model, PREVIOUS, str(before[CHAMPION]))
    client.set_registered_model_alias(model, CHAMPION, str(version))
    if before.get(CHALLENGER) == version:
        client.delete_registered_model_alias(model, CHALLENGER)
    client.set_model_version_tag(model, str(version), "published", utc())


def roll_back(client: Any, model: str, *, to: int, away_from: int, why: str) -> None:
    """Move `champion` back to the version `to`; the version that it leaves keeps a tag with the reason."""
    before = aliases_of(client, model)
    client.set_registered_model_alias(model, CHAMPION, str(to))
    if before.get(PREVIOUS) == to:
        client.delete_registered_model_alias(model, PREVIOUS)
    client.set_model_version_tag(model, str(away_from), ROLLED_BACK, f"{utc()}: {why}")


class Registry:
    """A registry as a rollout needs it. Where there is none, or the model is not in it, nothing is moved."""

    def __init__(self, uri: str) -> None:
        self._uri = uri

    def aliases(self, model: str) -> dict[str, int]:
        """Which version carries which alias."""
        if not is_there(self._uri):
            return {}
        with translated(self._uri):
            return aliases_of(client_at(self._uri), model)

    def version_of_run(self, model: str, run_id: str) -> int | None:
        """The version that a pipeline run registered, by the tag `run_id`; None where it registered none. Raises Unavailable."""
        if not is_there(self._uri):
            return None
        with translated(self._uri):
            found = client_at(self._uri).search_model_versions(f"name='{model}'", max_results=_MOST_VERSIONS)
        return max((int(version.version) for version in found if version.tags.get(RUN) == run_id), default=None)

    def promote(self, model: str, version: int) -> None:
        """Make `version` the champion, if it is not. Raises as `translated` does."""
        found = self.aliases(model)
        if found and found.get(CHAMPION) != version:
            with translated(self._uri):
                promote(client_at(self._uri), model, version)

    def roll_back(self, model: str, *, to: int, away_from: int, why: str) -> None:
        """Make `to` the champion again. Raises Unavailable."""
        found = self.aliases(model)
        if found and found.get(CHAMPION) != to:
            with translated(self._uri):
                roll_back(client_at(self._uri), model, to=to, away_from=away_from, why=why)


@contextlib.contextmanager
def translated(uri: str) -> Iterator[None]:
    """MLflow's errors as ours.

    Raises:
        Unavailable: it did not answer, or not to this password; a pod that starts again has the new one.
        ConfigError: this account may not do that.
    """
    try:
        yield
    except OSError as error:
        _tell_refusal(uri, error)
        raise Unavailable(
            f"The registry's files could not be written: {error}. Free some space and type the same command again."
        ) from error
    except _foreign_errors() as error:
        _tell_refusal(uri, error)
        raise Unavailable(f"The registry at {_shown(uri)} did not answer: {error}. Type the same command again.") from error


def _tell_refusal(uri: str, error: Exception) -> None:
    """Raise what a server means that knows whom it lets do what. Artifacts come by plain HTTP, so their errors are those of `requests`."""
    status = getattr(getattr(error, "response", None), "status_code", None) or _STATUS.get(getattr(error, "error_code", ""))
    workspace = os.environ.get("MLFLOW_WORKSPACE", "")
    if status == _WHO:
        raise Unavailable(
            f"The registry at {_shown(uri)} does not take the password of {_account()}, which was changed or never made: "
            "`make status-platform ENV=…` says which; whoever starts again takes the new one."
        ) from error
    if status == _FORBIDDEN:
        place = f" in the workspace {workspace}" if workspace else ""
        raise ConfigError(
            f"The registry at {_shown(uri)} does not let {_account()} do that{place}: an account changes what is its own team's, "
            "and `make status-platform ENV=…` says which grants are missing."
        ) from error
    if workspace and f"Workspace '{workspace}' not found" in str(error):
        raise ConfigError(
            f"The registry at {_shown(uri)} has no workspace {workspace}: MLFLOW_WORKSPACE names a team, and `make deploy-platform ENV=…` makes its own."
        ) from error


def _account() -> str:
    from mlflow.utils.credentials import read_mlflow_creds

    return read_mlflow_creds().username or "nobody (MLFLOW_TRACKING_USERNAME names no account)"


def _foreign_errors() -> tuple[type[Exception], ...]:
    """Asked for only when something was raised."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return (MlflowException, SQLAlchemyError)


def _shown(uri: str) -> str:
    """The address without user and password."""
    return uri.partition("://")[0] + "://" + uri.rpartition("@")[2] if "@" in uri else uri


def utc() -> str:
    """Now, as tags tell it."""
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime()) + " UTC"
