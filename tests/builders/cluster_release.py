"""Our chart on a cluster that somebody else runs: installed, upgraded, its leader killed, and everything taken away again.

`kubectl` and `helm` do the work, as for the people who install it, so whatever way of signing in a kubeconfig names is understood.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import binaries
from api_client import Client, Refused

CHART = Path(__file__).resolve().parents[2] / "helm" / "gpu-queue"
RELEASE = "gpu-queue"
SECONDS = 180


class Release:
    """The release `gpu-queue` in the namespace `gpu-queue`, and a proxy to the cluster's API server.

    Args:
        kubeconfig: of somebody who administers the cluster.
        image: REPOSITORY:TAG, which the cluster can run.
        values: more of them, as in NAME=VALUE,NAME=VALUE.
    """

    def __init__(self, *, kubeconfig: str, image: str, values: str = "") -> None:
        self._environment = os.environ | {"KUBECONFIG": kubeconfig}
        self._programs = binaries.paths(["helm", "kubectl"])
        repository, _, tag = image.rpartition(":")
        self._values = [f"image.repository={repository}", f"image.tag={tag}", *filter(None, [values])]
        self._namespaces: list[str] = []
        self._numbers = itertools.count(int(time.time()) % 100_000)

    def __enter__(self) -> Self:
        command = [str(self._programs["kubectl"]), "proxy", "--port=0"]
        self._proxy = subprocess.Popen(command, env=self._environment, stdout=subprocess.PIPE, text=True)
        assert self._proxy.stdout
        with self._proxy.stdout as said:
            self.client = Client("http://" + said.readline().rpartition(" ")[2].strip())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for namespace in list(self._namespaces):
            self.forget(namespace)
        self.helm("uninstall", RELEASE, "--ignore-not-found", "--no-hooks", "--wait", "--timeout", "60s")
        self._proxy.terminate()
        self._proxy.wait(10)

    # -- what people type -------------------------------------------------------------------------------------------------

    def helm(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """One `helm` command in our namespace."""
        return self._run("helm", "--namespace", RELEASE, *arguments)

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
        done = self.helm(verb, RELEASE, str(CHART), *_set(self._values), *arguments, "--wait", "--timeout", f"{SECONDS}s")
        assert done.returncode == 0, f"{done.stderr}\n{self.logs()}"

    def logs(self) -> str:
        """What the controllers said last."""
        chosen = ("--namespace", RELEASE, "--selector", "app.kubernetes.io/component=controller")
        return self.kubectl("get", "pods", *chosen).stdout + self.kubectl("logs", *chosen, "--tail=30", "--prefix").stdout

    # -- what is there ----------------------------------------------------------------------------------------------------

    def ready_pods(self, component: str = "controller") -> set[str]:
        """Names of the pods that are ready and not on their way out."""
        return {pod["metadata"]["name"] for pod in self._listed(component) if _ready(pod)}

    def pods(self, component: str) -> set[str]:
        """Names of all its pods, those on their way out included."""
        return {pod["metadata"]["name"] for pod in self._listed(component)}

    def _listed(self, component: str) -> list[Any]:
        selector = f"app.kubernetes.io%2Fcomponent%3D{component}"
        found: list[Any] = self.client.request("GET", f"/api/v1/namespaces/{RELEASE}/pods?labelSelector={selector}")["items"]
        return found

    def leader(self) -> str:
        """The pod that holds the lease; empty if none of those that are ready does."""
        holder = str(self._lease()["spec"].get("holderIdentity") or "")
        return holder if holder in self.ready_pods() else ""

    def kill(self, pod: str) -> None:
        """Delete it without waiting: another comes at once, while the old process may live its last seconds on the node."""
        done = self.kubectl("--namespace", RELEASE, "delete", "pod", pod, "--grace-period=0", "--force")
        assert done.returncode == 0, done.stderr

    def processes(self, pod: str) -> list[int]:
        """The processes of its container, if they are this machine's; found by the container's name among their cgroups."""
        statuses = self._pod(pod)["status"].get("containerStatuses", [])
        container = str(statuses[0].get("containerID", "")).rpartition("/")[2] if statuses else ""
        return [int(file.parent.name) for file in Path("/proc").glob("[0-9]*/cgroup") if container and container in _text(file)]

    def sigkill(self, pod: str) -> None:
        """Kill its process as a kernel that is out of memory does; returns when the kubelet has noticed."""
        before = self._restarts(pod)
        for process in self.processes(pod):
            os.kill(process, signal.SIGKILL)
        deadline = time.monotonic() + 60
        while self._restarts(pod) == before:
            assert time.monotonic() < deadline, f"{pod} was not restarted"
            time.sleep(0.1)
        ended = self._pod(pod)["status"]["containerStatuses"][0]["lastState"]["terminated"]
        assert ended["exitCode"] == 128 + signal.SIGKILL, ended

    def renewed(self) -> str:
        """When the lease was last renewed, as the leader wrote it."""
        return str(self._lease()["spec"].get("renewTime", ""))

    def _pod(self, name: str) -> Any:
        return self.client.request("GET", f"/api/v1/namespaces/{RELEASE}/pods/{name}")

    def _restarts(self, pod: str) -> int:
        return sum(status["restartCount"] for status in self._pod(pod)["status"].get("containerStatuses", []))

    def _lease(self) -> Any:
        return self.client.request("GET", f"/apis/coordination.k8s.io/v1/namespaces/{RELEASE}/leases/gpu-queue")

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

    def _run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(self._programs[program]), *arguments]
        return subprocess.run(command, env=self._environment, capture_output=True, text=True, check=False, timeout=SECONDS + 60)


def _set(values: Iterable[str]) -> list[str]:
    return [part for value in values for part in ("--set", value)]


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:  # it has ended meanwhile
        return ""


def _ready(pod: Any) -> bool:
    conditions = pod["status"].get("conditions", [])
    ready = any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)
    return ready and "deletionTimestamp" not in pod["metadata"]
