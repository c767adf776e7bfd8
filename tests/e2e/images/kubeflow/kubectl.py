#!/usr/bin/env python3
"""kubectl, which renders Kubeflow Pipelines with the one image beside this file in place of the release's.

`millrace platform deploy` takes its kubectl from KUBECTL, and renders our patches over the fetched release by `kubectl kustomize`: with KUBECTL=this file all
else is deployed as it is. Containers keep their settings, accounts and disks; what changes is the image, what starts in it, and that the components go which
are not built here. MILLRACE_E2E_KUBECTL is the real one, MILLRACE_E2E_KUBEFLOW_IMAGE the image.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import yaml

STARTS: dict[str, list[str]] = {
    "ml-pipeline": ["apiserver", "--config=/etc/kubeflow", "--logtostderr=true"],
    "ml-pipeline-persistenceagent": ["sh", "-c", "exec persistence_agent --logtostderr=true --namespace= --numWorker=2"],
    "ml-pipeline-scheduledworkflow": ["controller", "--logtostderr=true", "--namespace="],
    "workflow-controller": ["workflow-controller"],
    "metadata-grpc-deployment": ["python3.11", "/metadata_server.py"],
    "mysql": ["sh", "/start-mysql.sh"],
    "seaweedfs": ["sh", "/start-object-store.sh"],
}
"""What each Deployment starts in our image. One that is not here is left out: the page, the two controllers of its viewers, the cache of version 1
pipelines, Envoy, and the writer of metadata for them."""
OWN_ARGUMENTS = frozenset({"mysql", "seaweedfs"})
"""Whose arguments are those of a program that ours stands in for."""


def placed(thing: dict[str, Any], image: str) -> dict[str, Any] | None:
    """The object as it is deployed here; None where it is left out."""
    if thing["kind"] != "Deployment":
        return thing
    name = thing["metadata"]["name"]
    if name not in STARTS:
        return None
    pod = thing["spec"]["template"]["spec"]
    for container in (*pod.get("initContainers", []), *pod["containers"]):
        container["image"] = image
        for variable in container.get("env", []):
            if variable["name"] in ("V2_DRIVER_IMAGE", "V2_LAUNCHER_IMAGE"):
                variable["value"] = image
    (container,) = pod["containers"]
    container["command"] = STARTS[name]
    arguments = container.get("args", [])
    if "--executor-image" in arguments:
        arguments[arguments.index("--executor-image") + 1] = image
    if name in OWN_ARGUMENTS:
        for part in ("args", "lifecycle", "startupProbe"):
            container.pop(part, None)
    return thing


def main() -> int:
    """As kubectl ends."""
    real, image = os.environ["MILLRACE_E2E_KUBECTL"], os.environ["MILLRACE_E2E_KUBEFLOW_IMAGE"]
    if sys.argv[1:2] != ["kustomize"]:
        os.execv(real, [real, *sys.argv[1:]])
    done = subprocess.run([real, *sys.argv[1:]], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode == 0:
        things = (placed(thing, image) for thing in yaml.safe_load_all(done.stdout) if thing)
        sys.stdout.write(yaml.safe_dump_all([thing for thing in things if thing]))
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
