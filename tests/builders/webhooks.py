"""The GPU queue's webhook as processes beside a test control plane, whose API server asks them by address."""

from __future__ import annotations

import http.client
import itertools
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import gpu_objects as make
from control_plane import ControlPlane, free_ports

CONFIGURATION = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/gpu-queue-gate"
SECRET = f"/api/v1/namespaces/{make.RELEASE_NAMESPACE}/secrets/gpu-queue-webhook"
ACCOUNT = f"system:serviceaccount:{make.RELEASE_NAMESPACE}:gpu-queue-webhook"


class Replica:
    """One process, with the rights that the chart gives it."""

    def __init__(self, plane: ControlPlane, log: Path, *arguments: str) -> None:
        self.port, self._probes = free_ports(2)
        command = [sys.executable, "-m", "gpuqueue.webhook", "--kubeconfig", str(plane.kubeconfig_for(ACCOUNT))]
        command += ["--namespace", make.RELEASE_NAMESPACE, "--configuration", "gpu-queue-gate", "--drain", "0.5"]
        command += ["--listen", f"127.0.0.1:{self.port}", "--probes", f"127.0.0.1:{self._probes}"]
        with log.open("wb") as file:
            self.process = subprocess.Popen([*command, *arguments], stdout=file, stderr=subprocess.STDOUT)

    def readiness(self) -> str:
        """What the kubelet would be told: `ok`, or why not."""
        connection = http.client.HTTPConnection("127.0.0.1", self._probes, timeout=5)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().read().decode()
        except OSError:
            return "does not listen"
        finally:
            connection.close()

    def end(self) -> None:
        """SIGTERM, and wait until it has gone."""
        self.process.terminate()
        self.process.wait(20)

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait(20)


class Webhook:
    """The replicas that a test starts; the API server asks one of them, as a Service would have it. All end with the context."""

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        self.plane, self._folder = plane, folder
        self._numbers = itertools.count()
        self.replicas: list[Replica] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for replica in self.replicas:
            replica.kill()

    def start(self, *arguments: str) -> Replica:
        """One more replica, ready as soon as it says so; arguments beyond the usual are added."""
        log = self._folder / f"webhook-{next(self._numbers)}.log"
        self.replicas.append(Replica(self.plane, log, *(arguments or ("--host", "127.0.0.1"))))
        return self.replicas[-1]

    def ask(self, replica: Replica) -> None:
        """Have the API server ask this one from now on."""
        webhook = {"name": "gate.gpu-queue.dev", "clientConfig": {"service": None, "url": f"https://127.0.0.1:{replica.port}/gate"}}
        self.plane.client.request("PATCH", CONFIGURATION, {"webhooks": [webhook]}, patch="strategic")

    def bundle(self) -> str:
        """Whom the API server trusts."""
        configuration: Any = self.plane.client.request("GET", CONFIGURATION)
        return str(configuration["webhooks"][0]["clientConfig"].get("caBundle", ""))

    def logs(self) -> str:
        """What the replicas said last."""
        return "\n".join(f"--- {file.name}\n{file.read_text()[-2000:]}" for file in sorted(self._folder.glob("webhook-*.log")))
