"""A real Kubernetes control plane on loopback, ready within seconds: what `tests/integration/gpuqueue` talks to.

etcd and the API server, and on request the scheduler, the controllers (Jobs, namespaces, garbage) and kwok, which plays nodes
with GPUs that nobody has. What each program takes is pinned and built by `binaries.py`. By hand: `python tools/control_plane.py`.

Every program dies with the thread that started it, even when that is killed: no test run leaves an API server behind.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import binaries
import programs
from api_client import Client, Refused
from certificates import Authority
from programs import NotReady

STAGES = Path(__file__).resolve().parent / "kwok" / "stages.yaml"
GPU = "nvidia.com/gpu"
ACCELERATOR = "cloud.google.com/gke-accelerator"
START_SECONDS = 60
LOG_LINES = 25


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A node to be played by kwok."""

    name: str
    gpus: int = 8
    accelerator: str = "nvidia-l4"


class ControlPlane:
    """Real Kubernetes, as a context manager.

    Args:
        folder: where certificates, data, kubeconfigs and logs go; the caller's to remove.
        controllers: start kube-controller-manager, so that Jobs make pods and deleted namespaces empty.
        nodes: start kube-scheduler and kwok with these.
        more: arguments for programs beside those that they get here, by program.

    Raises:
        NotReady: a program ended or was not ready in time.
        binaries.ToolsMissing: the programs are not there and cannot be built.
    """

    def __init__(
        self, folder: Path, *, controllers: bool = False, nodes: Sequence[Node] = (), more: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        self.folder = folder
        self.logs = folder / "logs"
        self.kubeconfig = folder / "admin.kubeconfig"
        self.client: Client
        self._controllers, self._nodes, self._more = controllers, tuple(nodes), more or {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._arguments: dict[str, Sequence[str]] = {}

    @staticmethod
    def programs(*, controllers: bool = False, nodes: Sequence[Node] = ()) -> list[str]:
        """What `binaries.py` must give for such a control plane."""
        return [
            "etcd",
            "kube-apiserver",
            *(["kube-controller-manager"] if controllers else []),
            *(["kube-scheduler", "kwok"] if nodes else []),
        ]

    def __enter__(self) -> Self:
        """Start everything and wait until it answers."""
        self._binaries = binaries.paths(self.programs(controllers=self._controllers, nodes=self._nodes))
        self.logs.mkdir(parents=True, exist_ok=True)
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """End everything at once; nothing here is worth a graceful goodbye."""
        for process in reversed(self._processes.values()):
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        for process in self._processes.values():
            process.wait()
        self._processes.clear()

    def kubeconfig_for(self, user: str, group: str = "") -> Path:
        """A kubeconfig with which a program speaks as `user`, for example `system:serviceaccount:gpu-queue:gpu-queue`."""
        file = self._kubeconfig(user)
        if not file.exists():
            self._write_kubeconfig(self._authority, user, group)
        return file

    def pids(self) -> dict[str, int]:
        """What runs now."""
        return {program: process.pid for program, process in self._processes.items()}

    def pause(self, program: str) -> None:
        """Stop a program's clock: it holds its connections and answers nobody."""
        self._processes[program].send_signal(signal.SIGSTOP)

    def resume(self, program: str) -> None:
        """Let a paused program go on."""
        self._processes[program].send_signal(signal.SIGCONT)

    def restart(self, program: str) -> None:
        """Kill a program and start it again; returns when the API server answers."""
        self._processes[program].kill()
        self._processes[program].wait()
        self._run(program, self._arguments[program])
        self.wait("the API server", self._answers)

    def tail(self) -> str:
        """The last lines of every program's log."""
        files = sorted(self.logs.glob("*.log"))
        return "\n".join(f"--- {file}\n" + "\n".join(file.read_text(errors="replace").splitlines()[-LOG_LINES:]) for file in files)

    # -- starting ---------------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        authority = self._authority = Authority(self.folder / "certificates")
        etcd, peers, api = free_ports(3)
        self.client = Client(f"https://127.0.0.1:{api}", authority.client("admin", user="admin", group="system:masters"))
        for user in ("admin", "system:kube-controller-manager", "system:kube-scheduler", "kwok"):
            self._write_kubeconfig(authority, user, "" if user.startswith("system:") else "system:masters")
        self._run("etcd", _etcd_arguments(self.folder / "etcd", etcd, peers))
        self._run("kube-apiserver", _api_server_arguments(authority, api, etcd))
        self.wait("the API server", self._answers)
        if self._controllers:
            self._run("kube-controller-manager", _controller_arguments(authority, self._kubeconfig("system:kube-controller-manager")))
        if self._nodes:
            self._start_nodes()

    def _start_nodes(self) -> None:
        scheduler = {
            "apiVersion": "kubescheduler.config.k8s.io/v1",
            "kind": "KubeSchedulerConfiguration",
            "leaderElection": {"leaderElect": False},
            "clientConnection": {"kubeconfig": str(self._kubeconfig("system:kube-scheduler")), "qps": 500, "burst": 1000},
        }
        config = self.folder / "scheduler.json"
        config.write_text(json.dumps(scheduler))
        self._run("kube-scheduler", [f"--config={config}", "--secure-port=0"])
        self._run("kwok", [f"--kubeconfig={self._kubeconfig('kwok')}", f"--config={STAGES}", "--server-address="])
        for node in self._nodes:
            self.client.request("POST", "/api/v1/nodes", _node_object(node))
        self.wait(f"{len(self._nodes)} nodes", self._nodes_ready)

    def _run(self, program: str, arguments: Sequence[str]) -> None:
        command: list[str | Path] = [self._binaries[program], *arguments, *self._more.get(program, ())]
        self._processes[program] = programs.started(command, self.logs / f"{program}.log")
        self._arguments[program] = arguments

    def wait(self, what: str, ready: Callable[[], bool]) -> None:
        """Return once `ready()` holds; raises `NotReady` when it does not in time or a program has ended."""
        deadline = time.monotonic() + START_SECONDS
        while not ready():
            for program, process in self._processes.items():
                if process.poll() is not None:
                    raise NotReady(f"{program} ended with {process.returncode} while we waited for {what}.\n{self.tail()}")
            if time.monotonic() > deadline:
                raise NotReady(f"{what}: not ready after {START_SECONDS} s.\n{self.tail()}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            self.client.request("GET", "/readyz", timeout=2)
            self.client.request("GET", "/api/v1/namespaces/default", timeout=2)
        except (OSError, Refused):  # not listening yet, not ready yet
            return False
        return True

    def _nodes_ready(self) -> bool:
        nodes = self.client.request("GET", "/api/v1/nodes")["items"]
        return all(any(c["type"] == "Ready" and c["status"] == "True" for c in n["status"].get("conditions", [])) for n in nodes)

    def _kubeconfig(self, user: str) -> Path:
        return self.folder / f"{_file_name(user)}.kubeconfig"

    def _write_kubeconfig(self, authority: Authority, user: str, group: str) -> None:
        certificate, key = authority.issue(_file_name(user), user=user, group=group)
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "tests",
            "clusters": [
                {"name": "tests", "cluster": {"server": self.client.url, "certificate-authority-data": _inline(authority.certificate)}}
            ],
            "users": [{"name": user, "user": {"client-certificate-data": _inline(certificate), "client-key-data": _inline(key)}}],
            "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": user}}],
        }
        path = self._kubeconfig(user)
        path.touch(mode=0o600)
        path.write_text(json.dumps(config))  # JSON is YAML


def _file_name(user: str) -> str:
    return user.removeprefix("system:").replace(":", "-")


def _etcd_arguments(data: Path, port: int, peers: int) -> list[str]:
    client, peer = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peers}"
    return [
        f"--data-dir={data}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--unsafe-no-fsync",  # the data does not outlive the test
    ]


def _api_server_arguments(authority: Authority, port: int, etcd: int) -> list[str]:
    certificate, key = authority.issue("kube-apiserver", user="kube-apiserver", hosts=("localhost", "kubernetes.default.svc"))
    signer = authority.issue("service-accounts", user="service-accounts")
    return [
        f"--etcd-servers=http://127.0.0.1:{etcd}",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        f"--tls-cert-file={certificate}",
        f"--tls-private-key-file={key}",
        f"--client-ca-file={authority.certificate}",
        "--authorization-mode=RBAC",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={signer[0]}",
        f"--service-account-signing-key-file={signer[1]}",
        "--service-cluster-ip-range=10.96.0.0/16",
        "--endpoint-reconciler-type=none",  # it refuses loopback
        "--disable-admission-plugins=ServiceAccount",  # pods need no token here, and none without controllers could have one
    ]


def _controller_arguments(authority: Authority, kubeconfig: Path) -> list[str]:
    return [
        f"--kubeconfig={kubeconfig}",
        "--use-service-account-credentials=true",  # without it Jobs make no pods and new nodes keep their taints
        f"--service-account-private-key-file={authority.folder / 'service-accounts.key'}",
        f"--root-ca-file={authority.certificate}",
        "--leader-elect=false",
        "--secure-port=0",
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
    ]


def _node_object(node: Node) -> dict[str, Any]:
    capacity = {"cpu": "64", "memory": "512Gi", "pods": "250", GPU: str(node.gpus)}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": node.name,
            "annotations": {"test.millrace/node": "fake"},
            "labels": {ACCELERATOR: node.accelerator, "kubernetes.io/hostname": node.name},
        },
        "status": {"capacity": capacity, "allocatable": capacity},
    }


def _inline(file: Path) -> str:
    return base64.b64encode(file.read_bytes()).decode()


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago, below those that Linux gives to clients: none of these takes one before we listen."""
    with contextlib.ExitStack() as held:
        ports: list[int] = []
        while len(ports) < count:
            port = random.randint(20000, 32000)  # noqa: S311  # tests that start together should not try the same ones
            with contextlib.suppress(OSError):
                held.enter_context(socket.socket()).bind(("127.0.0.1", port))
                ports.append(port)
        return ports


@contextlib.contextmanager
def _until_interrupted() -> Iterator[None]:
    yield
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()


def main() -> int:
    """A control plane with two nodes of eight GPUs until Ctrl-C, for looking around with kubectl."""
    nodes = [Node(name=f"gpu-{n}") for n in range(2)]
    programs = [*ControlPlane.programs(controllers=True, nodes=nodes), "kubectl"]
    try:
        found = binaries.paths(programs, say=lambda text: print(text, file=sys.stderr))
    except binaries.ToolsMissing as error:
        print(error, file=sys.stderr)
        return 2
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="control-plane-") as folder, ControlPlane(Path(folder), controllers=True, nodes=nodes) as plane:
        print(f"ready after {time.monotonic() - started:.1f} s; logs in {plane.logs}. Ctrl-C ends it.\n")
        with _until_interrupted():
            print(f"export KUBECONFIG={plane.kubeconfig}\n{found['kubectl']} get nodes", flush=True)
    return 0


if __name__ == "__main__":
    os.umask(0o077)
    sys.exit(main())
