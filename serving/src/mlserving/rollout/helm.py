"""A cluster: what is wanted are the values of a `helm/model-serving` release, and Kubernetes follows them.

`tracks` are the chart's own values; the rest of the document lies beside them under `rollout`, of which the chart tells the gateways phase, step and
verdict. It is kept as one JSON text, because helm lays new values over old ones and would leave in a mapping what had been taken out of it.

Helm numbers releases and stores each under its number once, so of two upgrades at the same time one fails. Between reading and upgrading it offers no
comparison: the number is compared before and after, so that somebody who came in between is told of (Conflict), though not always kept out.

A driver that is killed while helm writes leaves a release of which helm says for ever that somebody is at it. So each write of ours is marked with its number: one that
bears its own number and has not ended long after we would have given it up is nobody's. Its record goes, and the next write goes over what it did. Other people's are left alone.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mlserving.errors import ConfigError, Conflict, NotServed, Unavailable
from mlserving.gateway.settings import Log, Track
from mlserving.rollout.document import Desired, Wanted
from mlserving.rollout.installed_chart import write_chart

_SECONDS = 120
MARK = "millrace.dev/rollout-write"
"""Helm's label on a write of ours: its number. Later writes of others inherit it, and have another number."""
_BUSY = ("another operation", "already exists", "has been modified")


@dataclass(frozen=True, slots=True, kw_only=True)
class HelmDriver:
    """See `driver.Driver`."""

    release: str
    namespace: str
    chart: str = ""
    """A folder, an archive or an oci:// address. Empty: the chart that is installed, out of helm's own record."""
    helm: str = field(default_factory=lambda: os.environ.get("HELM", "helm"))
    kubectl: str = field(default_factory=lambda: os.environ.get("KUBECTL", "kubectl"))
    patience: float = _SECONDS
    """Seconds after which a write of ours that has not ended is nobody's: helm is given up by then."""

    def read(self, model: str) -> Desired:
        """See `driver.Driver`."""
        values = self._json("get", "values", self.release, "--all", "--output", "json")
        served = values.get("model", {}).get("name")
        if served != model:
            raise NotServed(
                f"The release {self.release} in {self.namespace} serves {served!r}, not {model!r}. See: helm list -n {self.namespace}"
            )
        return document_in(values, self._number())

    def write(self, desired: Desired) -> Desired:
        """See `driver.Driver`. The revision is helm's number of the release."""
        if self._number() != desired.revision:
            raise Conflict(_other(desired))
        settings = [text for name, value in values_of(desired).items() for text in ("--set-json", f"{name}={json.dumps(value)}")]
        mark = f"{MARK}={desired.revision + 1}"
        try:
            with self._chart() as chart:
                self._run("upgrade", self.release, chart, "--reset-then-reuse-values", "--labels", mark, *settings)
        except Conflict as error:
            if not self._forgotten(desired.revision):
                raise
            raise Conflict(
                f"A driver was killed while it wrote {self.release}. Its write is forgotten, and the next one brings what is missing. "
                f"Type the same command again, or look: millrace rollout status {desired.model}"
            ) from error
        number = self._number()
        if number != desired.revision + 1:
            raise Conflict(_other(desired))
        return desired.model_copy(update={"revision": number})

    def await_in_force(self, desired: Desired, seconds: float) -> None:
        """See `driver.Driver`. Servers are waited for; the gateways read their weights themselves within two seconds."""
        for track in desired.tracks:
            deployment = f"deployment/{self.release}-{track.value}"
            command = [self.kubectl, "rollout", "status", deployment, "--namespace", self.namespace, f"--timeout={max(1, round(seconds))}s"]
            done = _started(command, seconds + _SECONDS)
            if done.returncode:
                version = desired.tracks[track].version
                raise Unavailable(
                    f"{deployment} in {self.namespace} is not ready with version {version}: {_last(done.stderr)}. "
                    f"See: kubectl -n {self.namespace} describe {deployment}"
                )

    def digest(self, model: str, version: int, /) -> str:
        """The store is the cluster's: `--digest` tells it, and without one nothing is compared."""
        del model, version
        return ""

    def newest(self, model: str, /) -> int | None:
        """The store is the cluster's: the registry's challenger tells the version, or `--version`."""
        del model
        return None

    def _number(self) -> int:
        """The release's number now."""
        found = self._json("history", self.release, "--max", "1", "--output", "json")
        return int(found[-1]["revision"])

    @contextmanager
    def _chart(self) -> Iterator[str]:
        """What to upgrade with; that of the last write that ended well, from which helm takes the values, too."""
        if self.chart:
            yield self.chart
            return
        selected = ("--selector", f"owner=helm,name={self.release},status=deployed", "--namespace", self.namespace)
        found = _started([self.kubectl, "get", "secrets", *selected, "--output", "json"], _SECONDS)
        if found.returncode:
            raise Unavailable(
                f"helm's record of {self.release} cannot be read: {_last(found.stderr)}. Mend that, then type the same command again."
            )
        records = json.loads(found.stdout)["items"]
        if not records:
            raise NotServed(
                f"No write of {self.release} in {self.namespace} has ended well. See: helm history {self.release} -n {self.namespace}"
            )
        newest = max(records, key=lambda record: int(record["metadata"]["labels"]["version"]))
        with tempfile.TemporaryDirectory(prefix="chart-") as folder:
            yield str(write_chart(newest["data"]["release"], Path(folder)))

    def _forgotten(self, number: int) -> bool:
        """Whether the release's last record is of a killed driver's write; then it is gone now."""
        record = ("secret", f"sh.helm.release.v1.{self.release}.v{number}", "--namespace", self.namespace)
        found = _started([self.kubectl, "get", *record, "--ignore-not-found", "--output", "json"], _SECONDS)
        labels = json.loads(found.stdout)["metadata"]["labels"] if found.stdout.strip() else {}
        ours = labels.get("status") == "pending-upgrade" and labels.get(MARK) == str(number)
        if not ours or time.time() - float(labels["createdAt"]) < self.patience:
            return False
        return not _started([self.kubectl, "delete", *record, "--ignore-not-found"], _SECONDS).returncode

    def _json(self, *arguments: str) -> Any:
        return json.loads(self._run(*arguments))

    def _run(self, *arguments: str) -> str:
        done = _started([self.helm, *arguments, "--namespace", self.namespace], _SECONDS)
        if not done.returncode:
            return done.stdout
        said = _last(done.stderr)
        if "not found" in said:
            raise NotServed(f"There is no release {self.release} in {self.namespace}: {said}. See: helm list -n {self.namespace}")
        if any(words in said for words in _BUSY):
            raise Conflict(f"Somebody else is changing {self.release}: {said}. Look again: helm history {self.release} -n {self.namespace}")
        raise Unavailable(f"helm {arguments[0]} {self.release} failed: {said}. Mend that, then type the same command again.")


def values_of(desired: Desired) -> dict[str, Any]:
    """The chart's values, by their paths, that say what a document wants."""
    values: dict[str, Any] = {}
    for track in (Track.STABLE, Track.CANARY):
        wanted = desired.tracks.get(track)
        values[f"tracks.{track.value}.enabled"] = wanted is not None
        values[f"tracks.{track.value}.weight"] = wanted.weight if wanted else 0
        if wanted:
            values |= {f"tracks.{track.value}.version": wanted.version, f"tracks.{track.value}.digest": wanted.digest}
    values |= {"gateway.settings.sticky": desired.sticky or "", "gateway.settings.log": desired.log.model_dump(mode="json")}
    values["rollout.phase"] = desired.rollout.phase.value if desired.rollout else ""
    values["rollout.document"] = desired.model_dump_json(exclude={"model", "revision", "tracks", "sticky", "log"})
    return values


def document_in(values: dict[str, Any], number: int) -> Desired:
    """The inverse, from a release's values.

    Raises:
        ConfigError: they are not a rollout's.
    """
    settings = values.get("gateway", {}).get("settings", {})
    tracks = {
        track: Wanted(version=found["version"], digest=found.get("digest", ""), weight=found["weight"])
        for track in (Track.STABLE, Track.CANARY)
        if (found := values["tracks"][track.value]).get("enabled")
    }
    kept = (values.get("rollout") or {}).get("document") or "{}"
    try:
        return Desired.model_validate(
            {
                **json.loads(kept),
                "model": values["model"]["name"],
                "revision": number,
                "tracks": tracks,
                "sticky": settings.get("sticky") or None,
                "log": Log.model_validate(settings.get("log", {})),
            }
        )
    except (ValidationError, ValueError) as error:
        raise ConfigError(
            f"The release's values under `rollout` are not as Millrace writes them: {error}. Try: helm history, helm rollback"
        ) from error


def _started(command: list[str], seconds: float) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds)
    except FileNotFoundError as error:
        raise ConfigError(f"{command[0]} is not on PATH. Install it, or name it: HELM=…, KUBECTL=…") from error
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"{command[0]} {command[1]} gave no answer within {seconds:.0f} s. Type the same command again.") from error


def _last(said: str) -> str:
    """What a program said last, where it says why."""
    lines = [line for line in said.splitlines() if line.strip()]
    return lines[-1].removeprefix("Error: ") if lines else "it did not say why"


def _other(desired: Desired) -> str:
    return f"The release of {desired.model} was changed by somebody else since it was read. Look again: millrace rollout status {desired.model}"
