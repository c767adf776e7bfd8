"""Our chart on a cluster that somebody else runs: installed, upgraded, its leader killed, and everything taken away again.

`kubectl` and `helm` do the work, as for the people who install it, so whatever way of signing in a kubeconfig names is understood.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import binaries
from api_client import Client, Refused

CHARTS = Path(__file__).resolve().parents[2] / "helm"
RELEASE = "gpu-queue"
SECONDS = 180


class HelmRelease:
    """A release of a chart in the namespace of the same name, and a proxy to the cluster's API server.

    Args:
        chart: its folder in helm/; also the name of the chart's pods.
        name: of the release and of its namespace.
        kubeconfig: of somebody who administers the cluster.
        values: NAME=VALUE,NAME=VALUE.
        seconds: that an installation or an upgrade may take.
    """

    def __init__(self, *, chart: str, name: str, kubeconfig: str, values: Iterable[str] = (), seconds: int = SECONDS) -> None:
        self.chart, self.name, self._seconds = chart, name, seconds
        self._environment = os.environ | {"KUBECONFIG": kubeconfig}
        self._programs = binaries.paths(["helm", "kubectl"])
        self._values = list(values)

    def __enter__(self) -> Self:
        command = [str(self._programs["kubectl"]), "proxy", "--port=0"]
        self._proxy = subprocess.Popen(command, env=self._environment, stdout=subprocess.PIPE, text=True)
        assert self._proxy.stdout
        with self._proxy.stdout as said:
            self.client = Client("http://" + said.readline().rpartition(" ")[2].strip())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.helm("uninstall", self.name, "--ignore-not-found", "--no-hooks", "--wait", "--timeout", "60s")
        self._proxy.terminate()
        self._proxy.wait(10)

    # -- what people type -------------------------------------------------------------------------------------------------

    def helm(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """One `helm` command in our namespace."""
        return self._run("helm", "--namespace", self.name, *arguments)

    def kubectl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """One `kubectl` command."""
        return self._run("kubectl", *arguments)

    def install(self) -> None:
        """`helm install --wait`."""
        self._installed("install", "--create-namespace")

    def upgrade(self, *settings: str) -> None:
        """`helm upgrade --wait` with other values."""
        self._installed("upgrade", *_set(settings))

    def _installed(self, verb: str, *arguments: str) -> None:
        chart = str(CHARTS / self.chart)
        done = self.helm(verb, self.name, chart, *_set(self._values), *arguments, "--wait", "--timeout", f"{self._seconds}s")
        assert done.returncode == 0, f"{done.stderr}\n{self.logs()}"

    def logs(self) -> str:
        """What its pods said last."""
        chosen = ("--namespace", self.name, "--selector", f"app.kubernetes.io/name={self.chart}")
        return (
            self.kubectl("get", "pods", *chosen).stdout + self.kubectl("logs", *chosen, "--tail=30", "--prefix", "--all-containers").stdout
        )

    # -- what is there ----------------------------------------------------------------------------------------------------

    def ready_pods(self, component: str = "controller") -> set[str]:
        """Names of the pods that are ready and not on their way out."""
        return {pod["metadata"]["name"] for pod in self.listed(component) if _ready(pod)}

    def pods(self, component: str) -> set[str]:
        """Names of all its pods, those on their way out included."""
        return {pod["metadata"]["name"] for pod in self.listed(component)}

    def listed(self, component: str) -> list[Any]:
        """Its pods as the API server tells them."""
        selector = f"app.kubernetes.io%2Fcomponent%3D{component}"
        found: list[Any] = self.client.request("GET", f"/api/v1/namespaces/{self.name}/pods?labelSelector={selector}")["items"]
        return found

    def kill(self, pod: str) -> None:
        """Delete it without waiting: another comes at once, while the old process may live its last seconds on the node."""
        done = self.kubectl("--namespace", self.name, "delete", "pod", pod, "--grace-period=0", "--force")
        assert done.returncode == 0, done.stderr

    def _run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(self._programs[program]), *arguments]
        return subprocess.run(command, env=self._environment, capture_output=True, text=True, check=False, timeout=self._seconds + 60)


class Release(HelmRelease):
    """The GPU queue.

    Args:
        kubeconfig: of somebody who administers the cluster.
        image: REPOSITORY:TAG, which the cluster can run.
        values: more of them, as in NAME=VALUE,NAME=VALUE.
    """

    def __init__(self, *, kubeconfig: str, image: str, values: str = "") -> None:
        repository, _, tag = image.rpartition(":")
        chosen = [f"image.repository={repository}", f"image.tag={tag}", *filter(None, [values])]
        super().__init__(chart=RELEASE, name=RELEASE, kubeconfig=kubeconfig, values=chosen)
        self._namespaces: list[str] = []
        self._numbers = itertools.count(int(time.time()) % 100_000)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for namespace in list(self._namespaces):
            self.forget(namespace)
        super().__exit__(kind, error, trace)

    def leader(self) -> str:
        """The pod that holds the lease; empty if none of those that are ready does."""
        lease = self.client.request("GET", f"/apis/coordination.k8s.io/v1/namespaces/{RELEASE}/leases/gpu-queue")
        holder = str(lease["spec"].get("holderIdentity") or "")
        return holder if holder in self.ready_pods() else ""

    def fresh_namespace(self) -> str:
        """A name that nobody has, to be forgotten later."""
        self._namespaces.append(f"gpu-queue-e2e-{next(self._numbers)}")
        return self._namespaces[-1]

    def forget(self, namespace: str) -> None:
        """Delete a namespace with its pods, and then its queue, which the guards keep while pods hold GPUs."""
        self.kubectl("delete", "pods", "--all", "--namespace", namespace, "--grace-period=0", "--force", "--wait=false")
        deadline = time.monotonic() + 30
        while self.kubectl("delete", "gpuqueue", namespace, "--ignore-not-found").returncode and time.monotonic() < deadline:
            time.sleep(0.5)
        with contextlib.suppress(Refused):
            self.client.request("DELETE", f"/api/v1/namespaces/{namespace}")
        self._namespaces.remove(namespace)


def _set(values: Iterable[str]) -> list[str]:
    return [part for value in values for part in ("--set", value)]


def _ready(pod: Any) -> bool:
    conditions = pod["status"].get("conditions", [])
    ready = any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)
    return ready and "deletionTimestamp" not in pod["metadata"]
