"""Replicas of the GPU queue's controller as processes, the way a Deployment runs them; and somebody who watches what they do.

`Replicas` starts, kills, stops and starts anew. `Witness` follows pods and queues from outside, by watches of its own, and so sees every state that
the API server ever had, in order.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import gpu_objects as make
from api_client import Client, Refused
from control_plane import ControlPlane
from gpuqueue import labels
from gpuqueue.quantities import gpus_of

SETTINGS = """\
leaseSeconds: 3
tickSeconds: 1
lookForUnmanagedSeconds: 1
"""


class Replicas:
    """So many replicas, kept running."""

    def __init__(self, plane: ControlPlane, folder: Path, *, count: int = 1, settings: str = SETTINGS) -> None:
        self._kubeconfig, self._folder, self._count = plane.kubeconfig_for(make.CONTROLLER.user), folder, count
        self._client = plane.client
        self._settings = folder / "settings.yaml"
        self._settings.write_text(settings)
        self._numbers = itertools.count()
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        for _ in range(self._count):
            self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for process in self.running.values():
            process.send_signal(signal.SIGCONT)
            process.terminate()
        for process in self.running.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()

    def start(self, *arguments: str) -> str:
        """One more; returns its identity."""
        identity = f"replica-{next(self._numbers)}"
        command = [
            sys.executable,
            "-m",
            "gpuqueue",
            "controller",
            "--kubeconfig",
            str(self._kubeconfig),
            "--namespace",
            make.RELEASE_NAMESPACE,
        ]
        command += ["--identity", identity, "--settings", str(self._settings), *arguments]
        with (self._folder / f"{identity}.log").open("wb") as log:
            self.running[identity] = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, "PYTHONUNBUFFERED": "1"}
            )
        return identity

    def leader(self) -> str:
        """Who holds the lease, of those that run; empty if nobody does."""
        with contextlib.suppress(Refused):
            lease = self._client.request("GET", f"/apis/coordination.k8s.io/v1/namespaces/{make.RELEASE_NAMESPACE}/leases/gpu-queue")
            holder = str(lease["spec"].get("holderIdentity", ""))
            return holder if holder in self.running else ""
        return ""

    def kill(self, identity: str) -> None:
        """SIGKILL, and another takes its place, as a Deployment would have it."""
        process = self.running.pop(identity)
        process.kill()
        process.wait()
        self.start()

    def terminate(self, identity: str) -> None:
        """SIGTERM, as when its pod is deleted; returns when it has ended in order."""
        process = self.running.pop(identity)
        process.terminate()
        assert process.wait(30) == 0, self.logs()

    def stop(self, identity: str) -> None:
        """SIGSTOP: it is there and does nothing."""
        self.running[identity].send_signal(signal.SIGSTOP)

    def resume(self, identity: str) -> None:
        """SIGCONT."""
        self.running[identity].send_signal(signal.SIGCONT)

    def logs(self) -> str:
        """What they said, the last lines of each."""
        return "\n".join(f"--- {file.name}\n" + file.read_text()[-3000:] for file in sorted(self._folder.glob("*.log")))


_WATCHED = (("/api/v1/pods?labelSelector=gpu-queue.dev/managed%3Dtrue", "_see_pod"), ("/apis/gpu-queue.dev/v1/gpuqueues", "_see_queue"))


@dataclass(slots=True)
class Witness:
    """Sees every state of the managed pods of some namespaces."""

    client: Client
    namespaces: frozenset[str]
    pods: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    """As they are now, by uid."""
    most: dict[str, int] = field(default_factory=dict)
    """Namespace -> the most GPUs of open pods that there ever were at once."""
    opened: list[tuple[str, str]] = field(default_factory=list)
    """(namespace, name) of pods, in the order in which their gates were opened."""
    granted: list[str] = field(default_factory=list)
    """Names in the order in which they entered a ledger."""
    _ended: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)
    holes: list[str] = field(default_factory=list)
    """Why something may have been missed."""

    def __enter__(self) -> Self:
        for path, see in _WATCHED:
            since = self._list(path, see)
            thread = threading.Thread(target=self._follow, args=(path, since, see), daemon=True)
            thread.start()
            self._threads.append(thread)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()

    def open_gpus(self, namespace: str) -> int:
        """GPUs of the open pods of a namespace now."""
        return sum(gpus_of(pod["spec"]) for pod in self.pods.values() if pod["metadata"]["namespace"] == namespace and _open(pod))

    def _list(self, path: str, see: str) -> str:
        listed = self.client.request("GET", path)
        for item in listed["items"]:
            getattr(self, see)("ADDED", item)
        return str(listed["metadata"]["resourceVersion"])

    def _follow(self, path: str, since: str, see: str) -> None:
        """From where the last watch ended, however it did. An API server that was restarted knows no past: that is a hole, and is noted."""
        while not self._ended.is_set():
            try:
                for kind, thing in self.client.watch(path, since=since, seconds=60):
                    if kind == "ERROR":
                        self.holes.append(str(thing.get("message")))
                        since = self._list(path, see)
                        break
                    since = thing["metadata"]["resourceVersion"]
                    getattr(self, see)(kind, thing)
            except (OSError, http.client.HTTPException, Refused, ValueError):  # the API server is restarting
                time.sleep(0.1)

    def _see_pod(self, kind: str, pod: Mapping[str, Any]) -> None:
        namespace, uid = pod["metadata"]["namespace"], pod["metadata"]["uid"]
        if namespace not in self.namespaces:
            return
        before = self.pods.get(uid)
        if kind == "DELETED":
            self.pods.pop(uid, None)
        else:
            self.pods[uid] = pod
            if _open(pod) and (before is None or not _open(before)):
                self.opened.append((namespace, pod["metadata"]["name"]))
        self.most[namespace] = max(self.most.get(namespace, 0), self.open_gpus(namespace))

    def _see_queue(self, _kind: str, queue: Mapping[str, Any]) -> None:
        for grant in queue.get("status", {}).get("grants", []):
            if grant["namespace"] in self.namespaces and grant["uid"] not in self._known:
                self._known.add(grant["uid"])
                self.granted.append(grant["name"])

    _known: set[str] = field(default_factory=set)


def _open(pod: Mapping[str, Any]) -> bool:
    gated = any(gate["name"] == labels.GATE for gate in pod["spec"].get("schedulingGates", []))
    return not gated and pod["status"].get("phase") not in ("Succeeded", "Failed")
