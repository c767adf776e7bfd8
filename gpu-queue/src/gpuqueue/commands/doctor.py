"""`gpuq doctor`: what is wrong with the queue's installation, and what of the cluster will surprise its users; each with the next command."""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from gpuqueue.cluster.api import Api, decoded
from gpuqueue.cluster.pods import Spec, asks, moment
from gpuqueue.commands import reading
from gpuqueue.commands.reading import Seen
from gpuqueue.commands.screen import print_json, say
from gpuqueue.durations import words_of
from gpuqueue.errors import Gone, Refused
from gpuqueue.labels import MANAGED
from gpuqueue.words import gpus, listed

_ADMISSION = "/apis/admissionregistration.k8s.io/v1"
_GUARDS = (
    "gate-is-ours",
    "controller-limits",
    "no-bypass",
    "born-gated",
    "groups-stay",
    "ledger-is-ours",
    "grants-stay",
    "kind-stays",
    "one-queue-each",
    "namespaces-stay",
)
_MARKS = {"problem": "✗", "warning": "!", "fine": "✓", "unknown": "?"}
_KUEUE = "kueue.x-k8s.io"

Level = Literal["problem", "warning", "fine", "unknown"]
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    level: Level
    text: str
    command: str = ""


def add_parser(subparsers: Any) -> None:
    """`doctor`."""
    parser = subparsers.add_parser("doctor", help="what is wrong with the installation, and what will surprise its users")
    parser.add_argument("--json", action="store_true")
    reading.add_options(parser)
    parser.set_defaults(question=doctor)


async def doctor(api: Api, options: argparse.Namespace) -> int:
    """Look at everything; returns 3 if something is broken."""
    seen = await reading.look(api, options, history=False)
    findings: list[Finding] = []
    for check in (_gate, _guards, _leader, _queues, _namespaces, _quotas, _nodes, _pods, _deadlines):
        try:
            findings += [finding async for finding in check(api, options, seen)]
        except Refused as error:
            findings.append(Finding("unknown", f"{check.__name__.strip('_')}: you may not look: {error.message}"))
    if options.json:
        print_json(findings)
    else:
        for finding in findings:
            say(f"{_MARKS[finding.level]} {finding.text}" + (f"\n    {finding.command}" if finding.command else ""))
    return 3 if any(finding.level == "problem" for finding in findings) else 0


async def _gate(api: Api, _options: argparse.Namespace, _seen: Seen) -> AsyncIterator[Finding]:
    policy = await _exists(api, f"{_ADMISSION}/mutatingadmissionpolicies/gpu-queue-gate")
    bound = await _exists(api, f"{_ADMISSION}/mutatingadmissionpolicybindings/gpu-queue-gate")
    webhook = await _exists(api, f"{_ADMISSION}/mutatingwebhookconfigurations/gpu-queue-gate")
    if (policy and bound) or webhook:
        yield Finding("fine", f"the gate is there: a {'policy' if policy else 'webhook'}")
    else:
        yield Finding("problem", "nothing gates GPU pods: they start without waiting", "helm upgrade --install gpu-queue helm/gpu-queue")


async def _guards(api: Api, _options: argparse.Namespace, _seen: Seen) -> AsyncIterator[Finding]:
    missing = [
        name
        for name in _GUARDS
        for kind in ("validatingadmissionpolicies", "validatingadmissionpolicybindings")
        if not await _exists(api, f"{_ADMISSION}/{kind}/gpu-queue-{name}")
    ]
    if missing:
        text = f"guards are missing: {listed(sorted(set(missing)), 9)}; what they hold can be broken"
        yield Finding("problem", text, "helm upgrade --install gpu-queue helm/gpu-queue")
    else:
        yield Finding("fine", f"all {len(_GUARDS)} guards are there")


async def _leader(api: Api, options: argparse.Namespace, _seen: Seen) -> AsyncIterator[Finding]:
    look = f"kubectl get pods -n {options.queue_namespace} && kubectl logs -n {options.queue_namespace} deployment/gpu-queue --tail 20"
    try:
        lease = await _get(api, f"/apis/coordination.k8s.io/v1/namespaces/{options.queue_namespace}/leases/gpu-queue")
    except Gone:
        yield Finding("problem", f"no controller has ever led in namespace {options.queue_namespace}", look)
        return
    spec = lease["spec"]
    age = time.time() - moment(spec.get("renewTime", ""))
    if not spec.get("holderIdentity") or age > 3 * spec.get("leaseDurationSeconds", 10):
        yield Finding("problem", f"no controller leads: the lease was renewed {words_of(age)} ago; nobody is let in", look)
    else:
        yield Finding("fine", f"{spec['holderIdentity']} leads")


async def _queues(_api: Api, _options: argparse.Namespace, seen: Seen) -> AsyncIterator[Finding]:
    if not seen.view.policies:
        yield Finding("warning", "there is no GpuQueue, so GPU pods of managed namespaces wait for ever", "kubectl explain gpuqueue.spec")
    for text in seen.view.twice.values():
        yield Finding("problem", text)
    for policy in seen.view.policies.values():
        for complaint in policy.complaints:
            yield Finding("warning", f"queue {policy.name}: {complaint}", f"kubectl edit gq {policy.name}")
        if policy.spec.pool and policy.spec.pool.name not in seen.view.policies:
            yield Finding("warning", f"queue {policy.name} borrows from {policy.spec.pool.name}, which is not there", "kubectl get gq")
        if policy.spec.order == "easy" and not policy.spec.default_run_limit:
            text = f"queue {policy.name} has order easy and no defaultRunLimit: pods that declare no limit never pass anybody"
            yield Finding("warning", text, f"kubectl edit gq {policy.name}")


async def _namespaces(api: Api, _options: argparse.Namespace, seen: Seen) -> AsyncIterator[Finding]:
    managed = {
        item["metadata"]["name"]: item["metadata"].get("labels", {})
        async for item in _items(api, "/api/v1/namespaces", {"labelSelector": f"{MANAGED}=true"})
    }
    for name in sorted(seen.view.namespaces.keys() - managed.keys()):
        text = f"namespace {name} is in queue {seen.view.namespaces[name]} and not managed: its GPU pods start without waiting"
        yield Finding("problem", text, f"kubectl label namespace {name} {MANAGED}=true")
    for name in sorted(managed.keys() - seen.view.namespaces.keys()):
        yield Finding("problem", f"namespace {name} is managed and in no queue: its GPU pods wait for ever", "kubectl get gq")
    for name, labels in managed.items():
        if any(label.startswith(_KUEUE) for label in labels):
            yield Finding("warning", f"namespace {name} has labels of Kueue: pods behind two gates wait twice", "gpuq export --kueue")


async def _quotas(api: Api, _options: argparse.Namespace, seen: Seen) -> AsyncIterator[Finding]:
    """A ResourceQuota counts pods that wait: it refuses what should stand in line."""
    for namespace in seen.view.namespaces:
        async for item in _items(api, f"/api/v1/namespaces/{namespace}/resourcequotas"):
            hard = item["spec"].get("hard", {})
            for key, limit in hard.items():
                if key.startswith("requests.nvidia.com/"):
                    text = (
                        f"ResourceQuota {namespace}/{item['metadata']['name']} allows {limit} of {key}, waiting pods included: "
                        "beyond that pods are refused instead of queued. Leave it out, or make it a cap on the length of the line"
                    )
                    yield Finding("warning", text, f"kubectl edit resourcequota -n {namespace} {item['metadata']['name']}")


async def _nodes(api: Api, _options: argparse.Namespace, seen: Seen) -> AsyncIterator[Finding]:
    """What quotas promise together, beside what the nodes of today have. Autoscaled pools may have more tomorrow."""
    there: defaultdict[tuple[tuple[str, str], ...], int] = defaultdict(int)
    nodes = [item async for item in _items(api, "/api/v1/nodes")]
    promised: defaultdict[tuple[tuple[str, str], ...], int] = defaultdict(int)
    for policy in seen.view.policies.values():
        for lane in policy.spec.lanes:
            promised[tuple(sorted(lane.match.items()))] += lane.quota
    for match in promised:
        for node in nodes:
            if set(match) <= set(node["metadata"].get("labels", {}).items()):
                held = node["status"].get("allocatable", {})
                there[match] += sum(int(count) for name, count in held.items() if name.startswith("nvidia.com/") and count.isdecimal())
    for match, quota in promised.items():
        if quota > there[match]:
            what = ", ".join(f"{key}={value}" for key, value in match) or "any node"
            yield Finding(
                "warning",
                f"lanes for {what} promise {gpus(quota)}; the nodes of now have {there[match]}. Right if the pool scales up to that",
                "kubectl get nodes -L cloud.google.com/gke-accelerator",
            )


async def _pods(_api: Api, _options: argparse.Namespace, seen: Seen) -> AsyncIterator[Finding]:
    board = seen.board()
    passed_by = [
        f"{line.request.namespace}/{line.request.name} ({line.wait.reason.value})" for line in board.lines.values() if not line.wait.place
    ]
    if passed_by:
        yield Finding("warning", f"{len(passed_by)} cannot start as they are: {listed(passed_by, 5)}", "gpuq queue NAME")
    foreign = [f"{pod.namespace}/{pod.name}" for pod in seen.view.unmanaged.values()]
    if foreign:
        text = f"{len(foreign)} pods hold GPUs and never met the gate: {listed(foreign, 5)}. They are counted, and left alone"
        yield Finding("warning", text, f"kubectl get pods -A -l '{MANAGED}!=true'")
    shut = [f"{grant.namespace}/{grant.name}" for _, grant in board.unopened(seen.view.pods)]
    if shut:
        yield Finding("problem", f"granted, but the gate stays shut: {listed(shut, 5)}", "gpuq why POD -n NAMESPACE")


async def _deadlines(api: Api, _options: argparse.Namespace, seen: Seen) -> AsyncIterator[Finding]:
    """The clock of a Job runs while its pods wait."""
    for namespace in seen.view.namespaces:
        async for item in _items(api, f"/apis/batch/v1/namespaces/{namespace}/jobs"):
            deadline = item["spec"].get("activeDeadlineSeconds")
            waits = asks(decoded(msgspec.json.encode(item["spec"]["template"]["spec"]), Spec))
            over = any(each["type"] in ("Complete", "Failed") for each in item.get("status", {}).get("conditions", ()))
            if deadline and waits and not over:
                text = f"Job {namespace}/{item['metadata']['name']} is killed {words_of(deadline)} after it was made, time in line included"
                yield Finding(
                    "warning",
                    text + ". Set activeDeadlineSeconds on its pods instead",
                    f"kubectl get job -n {namespace} {item['metadata']['name']}",
                )


async def _exists(api: Api, path: str) -> bool:
    try:
        await api.request("GET", path)
    except Gone:
        return False
    return True


async def _get(api: Api, path: str) -> Json:
    return decoded(await api.request("GET", path), dict[str, Any])


async def _items(api: Api, path: str, query: dict[str, str] | None = None) -> AsyncIterator[Json]:
    async for page in api.pages(path, query or {}):
        for item in page.items or ():
            yield msgspec.json.decode(item, type=dict[str, Any])
