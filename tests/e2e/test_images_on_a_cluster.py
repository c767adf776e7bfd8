"""Our images as a cluster runs them: nobody in particular, a root that cannot be written to, and no network to the outside that is needed.

MILLRACE_E2E_KUBECONFIG=… MILLRACE_E2E_STEPS_IMAGE=REPOSITORY:TAG MILLRACE_E2E_MLFLOW_IMAGE=… pytest tests/e2e/test_images_on_a_cluster.py
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from functools import partial

import pytest

import typed_kubectl
from mlplatform.images import RECIPES
from mlplatform.services import Deployable
from restricted_pod import restricted_pod

KUBECONFIG = os.environ.get("MILLRACE_E2E_KUBECONFIG", "")
STEPS, MLFLOW = (os.environ.get(f"MILLRACE_E2E_{name}_IMAGE", "") for name in ("STEPS", "MLFLOW"))
NAMESPACE = "millrace-images-e2e"
SECONDS = 600
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(SECONDS + 120),
    pytest.mark.skipif(
        not KUBECONFIG, reason="name a cluster and images: MILLRACE_E2E_KUBECONFIG, MILLRACE_E2E_STEPS_IMAGE, MILLRACE_E2E_MLFLOW_IMAGE"
    ),
]


kubectl = partial(typed_kubectl.kubectl, KUBECONFIG, f"--namespace={NAMESPACE}")


@pytest.fixture(scope="module", autouse=True)
def namespace() -> Iterator[None]:
    """One that takes restricted pods only; gone afterwards."""
    restricted = {"pod-security.kubernetes.io/enforce": "restricted"}
    kubectl("apply", "--filename=-", given={"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": restricted}})
    yield
    kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def run_to_its_end(name: str, image: str, *arguments: str) -> str:
    """What a pod says that runs the image with these arguments; it must end well."""
    kubectl("apply", "--filename=-", given=restricted_pod(name, NAMESPACE, image, args=list(arguments)))
    kubectl("wait", f"pod/{name}", "--for=jsonpath={.status.containerStatuses[0].state.terminated}", f"--timeout={SECONDS}s")
    said = kubectl("logs", name)
    ended = json.loads(kubectl("get", "pod", name, "--output=json"))["status"]["containerStatuses"][0]["state"]["terminated"]
    assert ended["exitCode"] == 0, f"exit {ended['exitCode']}\n{said}"
    return said


@pytest.mark.skipif(not STEPS, reason="name the image: MILLRACE_E2E_STEPS_IMAGE")
def test_the_steps_image_takes_raw_rows_to_a_published_version() -> None:
    said = run_to_its_end("steps", STEPS, *RECIPES[Deployable.STEPS].check, "--json")
    record = json.loads(said[said.index("{\n") :])
    assert record["status"] == "blessed"
    assert record["facts"]["version"] == 1
    assert record["facts"]["published"] == "/tmp/millrace/models/transactions/1"


@pytest.mark.skipif(not MLFLOW, reason="name the image: MILLRACE_E2E_MLFLOW_IMAGE")
def test_the_registrys_image_has_what_signing_in_asks_for() -> None:
    assert "--app-name" in run_to_its_end("mlflow", MLFLOW, "--help")
