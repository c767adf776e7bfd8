"""`gpuq why POD`: its place, the reason in a sentence, who is ahead, when it is likely to start."""

from __future__ import annotations

import argparse
from typing import Any

from gpuqueue.cluster.api import Api
from gpuqueue.cluster.pods import Facts
from gpuqueue.cluster.reports import PodReport, pod_report
from gpuqueue.commands import reading
from gpuqueue.commands.screen import print_json, print_table, say
from gpuqueue.durations import words_of
from gpuqueue.errors import Gone, Refused


def add_parser(subparsers: Any) -> None:
    """`why`."""
    parser = subparsers.add_parser("why", help="why a pod waits, where it stands and when it is likely to start")
    parser.add_argument("pod")
    parser.add_argument("-n", "--namespace", help="default: that of the kubeconfig's context")
    parser.add_argument("--json", action="store_true")
    reading.add_options(parser)
    parser.set_defaults(question=why)


async def why(api: Api, options: argparse.Namespace) -> int:
    """Answer."""
    namespace = options.namespace or api.access.namespace
    pod = await reading.find_pod(api, namespace, options.pod)
    try:
        report, hidden = await _look(api, options, pod)
    except Gone:
        raise  # there are no queues at all
    except Refused:
        if pod.told is None:
            raise
        report, hidden = _as_told(pod, ""), ["GpuQueues"]
    if options.json:
        print_json(report)
    else:
        _show(report, hidden)
    return 0


async def _look(api: Api, options: argparse.Namespace, pod: Facts) -> tuple[PodReport, list[str]]:
    """Where the pod stands, and what this person may not list that matters for it."""
    seen = await reading.look(api, options)
    queue = seen.view.namespaces.get(pod.namespace, "")
    policy = seen.view.policies.get(queue)
    hidden = sorted(set(seen.hidden).intersection(policy.spec.namespaces if policy else ()))
    if hidden and pod.phase == "gated":
        return _as_told(pod, queue), [f"pods in {', '.join(hidden)}"]
    return _standing(pod, queue, pod_report(seen.board(), pod.namespace, pod.name, pod.uid)), []


def _standing(pod: Facts, queue: str, report: PodReport) -> PodReport:
    """What the picture does not say of pods that neither wait nor hold anything in it."""
    if report.state != "unmanaged":
        return report
    if pod.phase == "ended":
        report.state, report.message = "ended", "it has ended and holds no GPUs"
    elif pod.phase == "gated" and not queue:
        report.state, report.message = "waiting", pod.told.message if pod.told else "its namespace is in no GpuQueue; see: kubectl get gq"
    elif not pod.gpus:
        report.message = "it asks for no GPU, so the queue leaves it alone; if it does not start, see: kubectl describe pod " + pod.name
    return report


def _as_told(pod: Facts, queue: str) -> PodReport:
    told = pod.told.message if pod.told else "nothing was written on it yet"
    return PodReport(namespace=pod.namespace, name=pod.name, state="waiting", message=told, queue=queue, gpus=pod.gpus)


def _show(report: PodReport, hidden: list[str]) -> None:
    say(f"{report.namespace}/{report.name} {report.state}: {report.message}")
    if report.ahead:
        say()
        print_table(
            ["#Place", "Ahead of it", "Namespace", "#GPUs", "#Has waited", "Likely start"],
            [(other.place, other.name, other.namespace, other.gpus, words_of(other.seconds), other.likely[:16]) for other in report.ahead],
        )
    if hidden:
        say(f"You may not list {', '.join(hidden)}, so this is what the controller wrote last.")
