"""Kueue on a control plane of ours: its kinds, its webhooks on loopback, its manager, and queues, all from the module that `tools/kueue` pins.

What it installs with kustomize is read from the module's own source and changed where a control plane without a network for Services
demands it: the API server finds the webhooks by address. Beside that it differs from Kueue's own installation in this: only Jobs and pods are
integrated, CPU is not counted, requests are not limited more than by default, and the visibility server is off, since it listens everywhere.
"""

from __future__ import annotations

import base64
import datetime as dt
import functools
import ipaddress
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

import binaries
from api_client import Refused
from control_plane import ControlPlane, free_ports

Object = dict[str, Any]

MODULE = "sigs.k8s.io/kueue"
NAMESPACE = "kueue-system"
USER = f"system:serviceaccount:{NAMESPACE}:kueue-controller-manager"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
LOCAL_QUEUE = "gpus"
SERVICE, SECRET = "kueue-webhook-service", "kueue-webhook-server-cert"
GROUPS = {"kueue.x-k8s.io", "", "batch"}
"""Whose webhooks are needed: Kueue's own kinds, pods and Jobs."""
GPU = "nvidia.com/gpu"


@contextmanager
def kueue(plane: ControlPlane) -> Iterator[subprocess.Popen[bytes]]:
    """Kueue's manager, ready, until the end of the block."""
    program = binaries.paths(["kueue"], say=lambda text: print(text, file=sys.stderr, flush=True))["kueue"]
    source = binaries.source("kueue", MODULE) / "config" / "components"
    webhooks, probes, metrics = free_ports(3)
    folder = plane.folder / "kueue"
    pairs = _certificates(folder)
    client = plane.client
    client.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    secret = {name: _inline(content) for name, content in pairs.items()}
    client.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET, "namespace": NAMESPACE}, "data": secret})
    for thing in [*_kinds(source, webhooks), *_webhooks(source, webhooks)]:
        client.apply(thing)
    for kind in ("resourceflavors", "clusterqueues", "localqueues", "workloads"):
        path = f"/apis/kueue.x-k8s.io/v1beta2/{kind}"
        plane.wait(f"Kueue's {kind}", functools.partial(_done, plane, "GET", path))
    settings = folder / "settings.yaml"
    settings.write_text(json.dumps(_settings(source, folder, webhooks, probes, metrics)))  # JSON is YAML
    environment = os.environ | {"KUBECONFIG": str(plane.kubeconfig_for(USER, "system:masters"))}
    command = [str(program), f"--config={settings}", "--zap-log-level=2", "--feature-gates=VisibilityOnDemand=false"]
    with (plane.logs / "kueue.log").open("wb") as log:
        manager = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment)
    try:
        plane.wait("Kueue", lambda: _ready(probes, manager))
        yield manager
    finally:
        manager.kill()
        manager.wait()


def queue(plane: ControlPlane, team: str, gpus: int) -> None:
    """A queue of `gpus` GPUs for a team's namespace, or another quota for it."""
    flavour = {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "ResourceFlavor", "metadata": {"name": "l4"}, "spec": {}}
    lane = {"name": "l4", "resources": [{"name": GPU, "nominalQuota": gpus}]}
    spec = {"cohortName": "teams", "namespaceSelector": {}, "resourceGroups": [{"coveredResources": [GPU], "flavors": [lane]}]}
    cluster = {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "ClusterQueue", "metadata": {"name": team}, "spec": spec}
    local = {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "LocalQueue", "metadata": {"name": LOCAL_QUEUE, "namespace": team}}
    for thing in (flavour, cluster, local | {"spec": {"clusterQueue": team}}):
        plane.wait(f"Kueue takes {thing['kind']}", functools.partial(_applied, plane, thing))


def _kinds(source: Path, port: int) -> Iterator[Object]:
    """Its CRDs, with the patches that name the webhook which converts versions."""
    patches = {patch["metadata"]["name"]: patch for patch in map(_read, (source / "crd" / "patches").glob("webhook_in_*.yaml"))}
    for file in sorted((source / "crd" / "bases").glob("*.yaml")):
        kind = _read(file)
        if patch := patches.get(kind["metadata"]["name"]):
            kind["spec"]["conversion"] = patch["spec"]["conversion"]
            kind["spec"]["conversion"]["webhook"]["clientConfig"] = {"url": f"https://127.0.0.1:{port}/convert"}
        yield kind


def _webhooks(source: Path, port: int) -> Iterator[Object]:
    """Those that concern Jobs, pods and Kueue's own kinds; its own namespace and the system's are left out, as by its kustomization."""
    outside = {"matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kube-system", NAMESPACE]}]}
    for found in yaml.load_all((source / "webhook" / "manifests.yaml").read_text(), yaml.CSafeLoader):
        found["metadata"]["name"] = f"kueue-{found['metadata']['name']}"
        found["webhooks"] = [
            hook for hook in found["webhooks"] if {group for rule in hook["rules"] for group in rule["apiGroups"]} <= GROUPS
        ]
        for hook in found["webhooks"]:
            hook["clientConfig"] = {"url": f"https://127.0.0.1:{port}{hook['clientConfig']['service']['path']}"}
            if hook["name"].endswith(("pod.kb.io", "job.kb.io")):
                hook["namespaceSelector"] = outside
        yield found


def _settings(source: Path, folder: Path, webhooks: int, probes: int, metrics: int) -> Object:
    """Its own settings, with loopback addresses and the two integrations."""
    settings = _read(source / "manager" / "controller_manager_config.yaml")
    return settings | {
        "namespace": NAMESPACE,
        "health": {"healthProbeBindAddress": f"127.0.0.1:{probes}"},
        "metrics": {"bindAddress": f"127.0.0.1:{metrics}"},
        "webhook": {"host": "127.0.0.1", "port": webhooks, "certDir": str(folder)},
        "leaderElection": settings["leaderElection"] | {"resourceNamespace": NAMESPACE},
        "internalCertManagement": {"enable": True, "webhookServiceName": SERVICE, "webhookSecretName": SECRET},
        "integrations": {"frameworks": ["batch/job", "pod"]},
        "resources": {"excludeResourcePrefixes": ["cpu", "memory"]},
    }


def _ready(probes: int, manager: subprocess.Popen[bytes]) -> bool:
    if manager.poll() is not None:
        raise RuntimeError(f"Kueue ended with {manager.returncode}")
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{probes}/readyz", timeout=2) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def _applied(plane: ControlPlane, thing: Mapping[str, Any]) -> bool:
    try:
        plane.client.apply(thing)
    except Refused:  # its webhooks come up a moment after it says that it is ready
        return False
    return True


def _done(plane: ControlPlane, method: str, path: str) -> bool:
    try:
        plane.client.request(method, path)
    except Refused:
        return False
    return True


def _certificates(folder: Path) -> dict[str, bytes]:
    """What Kueue would make for itself and a kubelet would mount: valid for longer than the 90 days that it wants to be left, and for loopback."""
    folder.mkdir()
    authority, server = (rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2))
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kueue-ca"), x509.NameAttribute(NameOID.ORGANIZATION_NAME, "kueue")])
    root = _certificate(name, name, authority).add_extension(x509.SubjectAlternativeName([x509.DNSName("kueue-ca")]), critical=False)
    root = root.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    host = f"{SERVICE}.{NAMESPACE}.svc"
    names = [x509.DNSName(host), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    leaf = _certificate(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)]), name, server)
    leaf = leaf.add_extension(x509.SubjectAlternativeName(names), critical=False)
    leaf = leaf.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    pem = serialization.Encoding.PEM
    files = {
        "ca.crt": root.sign(authority, hashes.SHA256()).public_bytes(pem),
        "tls.crt": leaf.sign(authority, hashes.SHA256()).public_bytes(pem),
        "ca.key": authority.private_bytes(pem, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()),
        "tls.key": server.private_bytes(pem, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()),
    }
    for file, content in files.items():
        (folder / file).write_bytes(content)
    return files


def _certificate(subject: x509.Name, issuer: x509.Name, key: rsa.RSAPrivateKey) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return x509.CertificateBuilder(
        subject_name=subject,
        issuer_name=issuer,
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=now - dt.timedelta(hours=1),
        not_valid_after=now + dt.timedelta(days=365),
    )


def _read(file: Path) -> Object:
    found: Object = yaml.load(file.read_text(), yaml.CSafeLoader)
    return found


def _inline(content: bytes) -> str:
    return base64.b64encode(content).decode()
