"""The serving chart on a cluster that somebody else runs, with a store that its node and we both see, and callers inside it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

import steady_caller
from api_client import Refused
from cluster_release import HelmRelease
from restricted_pod import restricted_pod
from waiting import eventually

NAME = "cards"
CLAIM = "models"
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
KUBECONFIG = os.environ.get("MILLRACE_E2E_KUBECONFIG", "")
IMAGES = (os.environ.get("MILLRACE_E2E_SERVING_IMAGE", ""), os.environ.get("MILLRACE_E2E_SERVER_IMAGE", ""))
STORE = os.environ.get("MILLRACE_E2E_STORE", "")
NEEDED = pytest.mark.skipif(
    not (KUBECONFIG and all(IMAGES) and STORE),
    reason="name a cluster, images and a store: MILLRACE_E2E_KUBECONFIG, MILLRACE_E2E_SERVING_IMAGE, MILLRACE_E2E_SERVER_IMAGE, MILLRACE_E2E_STORE",
)
SMALL = ",".join(
    f"{owner}.resources.requests.cpu=20m,{owner}.resources.requests.memory=64Mi"
    for owner in ("tracks.stable", "tracks.canary", "gateway", "store")
)
"""One node has room for all of it, and for the pods that an update adds."""
DRAIN = "server.drainSeconds=12,server.graceSeconds=10,gateway.drainSeconds=8,gateway.graceSeconds=10"
NOWHERE: Any = {"cpu": "10m", "memory": "64Mi"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a caller saw."""

    protocol: str
    answers: dict[str, list[float]]
    """By version: how many answers, and when the first and the last came."""
    failed: int
    failures: list[str]


class ServingRelease(HelmRelease):
    """The release `cards` in the namespace `cards`, which takes restricted pods only.

    Args:
        kubeconfig: of somebody who administers the cluster.
        images: ours and the model server's, REPOSITORY:TAG.
        store: the model store, as the nodes see it.
        values: more of them.
    """

    def __init__(self, *, kubeconfig: str, images: tuple[str, str], store: str, values: tuple[str, ...]) -> None:
        (ours, our_tag), (server, server_tag) = (image.rsplit(":", 1) for image in images)
        self._store, self._image = store, images[0]
        self._given: list[str] = []
        chosen = (
            f"gateway.image.repository={ours},gateway.image.tag={our_tag}",
            f"server.kind=millrace,server.image.repository={server},server.image.tag={server_tag}",
            f"model.name={NAME},store.claim.name={CLAIM}",
        )
        super().__init__(chart="model-serving", name=NAME, kubeconfig=kubeconfig, values=[*chosen, *values], seconds=400)

    def __enter__(self) -> Self:
        super().__enter__()
        self.client.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAME, "labels": RESTRICTED}})
        self.give(CLAIM, "", "ReadOnlyMany")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        super().__exit__(kind, error, trace)
        self.kubectl("delete", "namespace", NAME, "--wait", "--timeout=90s")
        self.kubectl("delete", "persistentvolume", *(f"{NAME}-{claim}" for claim in self._given), "--wait=false")

    def give(self, claim: str, beside: str, mode: str) -> None:
        """Make a claim on a folder of the node: the store's path with `beside` after it."""
        self._given.append(claim)
        for thing in self._volume(claim, beside, mode):
            self.client.apply(thing)

    def _volume(self, claim: str, beside: str, mode: str) -> list[Any]:
        size = {"storage": "1Gi"}
        volume = {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": f"{NAME}-{claim}"},
            "spec": {
                "capacity": size,
                "accessModes": [mode],
                "storageClassName": "",
                "hostPath": {"path": self._store + beside},
                "claimRef": {"namespace": NAME, "name": claim},
            },
        }
        wanted = {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": claim, "namespace": NAME},
            "spec": {
                "accessModes": [mode],
                "storageClassName": "",
                "volumeName": f"{NAME}-{claim}",
                "resources": {"requests": size},
            },
        }
        return [volume, wanted]

    # -- what is there ----------------------------------------------------------------------------------------------------

    def containers(self, component: str) -> dict[str, tuple[str, int]]:
        """By pod: its uid, and how often its container was started again."""
        return {
            pod["metadata"]["name"]: (pod["metadata"]["uid"], sum(s["restartCount"] for s in pod["status"].get("containerStatuses", [])))
            for pod in self.listed(component)
        }

    def of_track(self, track: str) -> list[Any]:
        """A track's pods."""
        return [pod for pod in self.listed("server") if pod["metadata"]["labels"]["millrace.dev/track"] == track]

    def figure(self, component: str, port: int, metric: str) -> float:
        """The sum of a metric that a component's pod tells; 0 while it tells nothing."""
        ask = f"import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:{port}/metrics').read().decode())"
        pods = sorted(self.ready_pods(component))
        told = self.kubectl("--namespace", NAME, "exec", pods[0], "--", "/usr/bin/python3", "-c", ask).stdout if pods else ""
        return sum(float(line.rpartition(" ")[2]) for line in told.splitlines() if line.startswith((metric + "{", metric + " ")))

    def kill_container(self, pod: Any) -> int:
        """SIGKILL to a pod's model server. Returns how many processes were killed: none where the node is another machine."""
        uid, killed = pod["metadata"]["uid"], 0
        for process in Path("/proc").iterdir():
            try:
                command, group = (process / "cmdline").read_bytes(), (process / "cgroup").read_text()
                if b"--model-config=/etc/serving/models.config" in command and (uid in group or uid.replace("-", "_") in group):
                    os.kill(int(process.name), signal.SIGKILL)
                    killed += 1
            except (OSError, ValueError):
                continue
        return killed

    # -- callers inside ---------------------------------------------------------------------------------------------------

    def run_inside(self, name: str, command: list[str]) -> None:
        """Start a pod of our image."""
        pod = restricted_pod(name, NAME, self._image, command=["/usr/bin/python3", *command], resources={"requests": NOWHERE})
        self.client.request("POST", f"/api/v1/namespaces/{NAME}/pods", pod)

    def said(self, name: str) -> str:
        """What a pod has written."""
        try:
            return str(self.client.request("GET", f"/api/v1/namespaces/{NAME}/pods/{name}/log"))
        except Refused:  # not started yet
            return ""

    def ended(self, name: str) -> bool:
        """Whether a pod has run to its end."""
        return self.client.request("GET", f"/api/v1/namespaces/{NAME}/pods/{name}")["status"]["phase"] in {"Succeeded", "Failed"}


def store_here() -> Path:
    """The model store, as we see it."""
    return Path(STORE.partition("=")[0])


def stable(digests: dict[int, str], version: int, weight: int = 100) -> str:
    """Values: which version answers."""
    return f"tracks.stable.version={version},tracks.stable.digest={digests[version]},tracks.stable.weight={weight}"


@contextmanager
def installed(*values: str) -> Iterator[ServingRelease]:
    """The chart on the cluster that the environment names, small and quick to drain; gone afterwards with its namespace."""
    chosen = (DRAIN, SMALL, *values)
    with ServingRelease(kubeconfig=KUBECONFIG, images=IMAGES, store=STORE.partition("=")[2], values=chosen) as release:
        release.install()
        yield release


class Steady:
    """Callers that ask without a pause while the body runs; `seen` is what they saw."""

    def __init__(self, release: ServingRelease, name: str) -> None:
        self._release, self._name = release, name
        self.seen: list[Seen] = []

    def __enter__(self) -> Self:
        self._release.run_inside(self._name, ["-c", Path(steady_caller.__file__).read_text(), f"{NAME}.{NAME}.svc", NAME])
        eventually("somebody asks", lambda: "asking" in self._release.said(self._name), 90, every=0.2)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            stop = ["exec", self._name, "--", "/usr/bin/python3", "-c", "open('/tmp/stop', 'w')"]
            self._release.kubectl("--namespace", NAME, *stop)
            eventually("the callers stop", lambda: self._release.ended(self._name), 60, every=0.2)
            self.seen = [Seen(**report) for report in json.loads(self._release.said(self._name).splitlines()[-1])]
        self._release.kubectl("--namespace", NAME, "delete", "pod", self._name, "--wait=false")

    @property
    def versions(self) -> set[str]:
        """The versions that answered."""
        return {version for seen in self.seen for version in seen.answers}

    @property
    def count(self) -> int:
        """Answers, of all versions."""
        return int(sum(answers[0] for seen in self.seen for answers in seen.answers.values()))

    @property
    def failures(self) -> list[str]:
        """What went wrong, for people."""
        return [f"{seen.protocol}: {text}" for seen in self.seen for text in seen.failures]

    def last(self, version: int) -> float:
        """When a version answered last."""
        return max(seen.answers[str(version)][2] for seen in self.seen if str(version) in seen.answers)

    def first(self, version: int) -> float:
        """When a version answered first."""
        return min(seen.answers[str(version)][1] for seen in self.seen if str(version) in seen.answers)
