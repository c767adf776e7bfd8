"""A team with a namespace and a queue of its own, and what its people do, for tests of the GPU queue on a real control plane."""

from __future__ import annotations

from typing import Any

import gpu_objects as make
from api_client import Client, Object, Refused
from gpuqueue import labels

L4 = {"cloud.google.com/gke-accelerator": "nvidia-l4"}
QUEUES = f"/apis/{labels.DOMAIN}/v1/gpuqueues"


class Team:
    """A namespace with a queue of its own, and what its people type."""

    def __init__(self, api: Client, name: str) -> None:
        self.api, self.name = api, name

    def queue(self, **spec: Any) -> None:
        self.api.apply(make.queue(self.name, **spec))

    def may_have_a_queue(self) -> bool:
        """Whether the guards let a queue be written: after a restart of the API server they need a moment."""
        try:
            self.queue()
        except Refused:
            return False
        return True

    def submit(self, name: str, gpus: int = 1, *, notes: dict[str, str] | None = None, **spec: Any) -> None:
        pod = make.pod(name, gpus=gpus, **{"nodeSelector": L4, **spec})
        self.create(pod | {"metadata": {"name": name, "annotations": notes or {}}})

    def create(self, pod: Object) -> None:
        self.api.request("POST", f"/api/v1/namespaces/{self.name}/pods", pod)

    def end(self, name: str) -> None:
        self.api.request("DELETE", f"/api/v1/namespaces/{self.name}/pods/{name}?gracePeriodSeconds=0")

    def leave(self) -> None:
        """End all pods: the nodes of a control plane that tests share have sixteen GPUs."""
        self.api.request("DELETE", f"/api/v1/namespaces/{self.name}/pods?gracePeriodSeconds=0")

    def pod(self, name: str) -> Any:
        return self.api.request("GET", f"/api/v1/namespaces/{self.name}/pods/{name}")

    def pods(self) -> list[Any]:
        found: list[Any] = self.api.request("GET", f"/api/v1/namespaces/{self.name}/pods")["items"]
        return found

    def is_open(self, name: str) -> bool:
        return not self.pod(name)["spec"].get("schedulingGates")

    def open_pods(self) -> set[str]:
        return {pod["metadata"]["name"] for pod in self.pods() if not pod["spec"].get("schedulingGates")}

    def told(self, name: str) -> str:
        conditions = self.pod(name)["status"].get("conditions", [])
        return next((condition["message"] for condition in conditions if condition["type"] == labels.CONDITION), "")

    def status(self) -> Any:
        return self.api.request("GET", f"{QUEUES}/{self.name}").get("status", {})

    def grants(self) -> set[str]:
        return {grant["name"] for grant in self.status().get("grants", [])}
