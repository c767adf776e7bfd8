"""A ledger as large as the rule lets it grow, on a real API server with a real etcd behind it: it can be written, and so can shrink."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator

import pytest

import gpu_objects as make
from api_client import Client
from gpu_team import QUEUES
from gpuqueue.cluster import gpu_queues
from gpuqueue.cluster.gpu_queues import Policy
from gpuqueue.queue import LEDGER_BYTES, MOST_PODS, Grant, Pod

pytestmark = [pytest.mark.control_plane, pytest.mark.timeout(300)]


def single(number: int) -> Grant:
    """A step of a pipeline."""
    uid = f"5b1d6f0e-6c0f-4a53-8f3e-{number:012}"
    pods = (Pod(uid=uid, gpus=1, name=f"train-transactions-{number}"),)
    return Grant(
        key=uid, namespace="fraud", name=pods[0].name, lane="l4", pods=pods, at=1e9, since=1e9, family="fraud/train-transactions.root.train"
    )


def odd(number: int) -> Grant:
    """A group with a name that is as long and as strange as it may be."""
    pods = (Pod(uid=f"5b1d6f0e-6c0f-4a53-8f3e-{number:012}", gpus=1, name="worker"),)
    name = f"{number:06}".ljust(253, "<")
    return Grant(key=f"fraud/{name}", namespace="fraud", name=name, lane="l4", pods=pods, at=1e9)


def crowd(number: int) -> Grant:
    """A Job of as many pods as a group may have."""
    pods = tuple(Pod(uid=f"5b1d6f0e-6c0f-4a53-{number:04}-{each:012}", gpus=1, name=f"train-{each}") for each in range(MOST_PODS))
    return Grant(key=f"fraud/job/train-{number}", namespace="fraud", name=f"job/train-{number}", lane="l4", pods=pods, at=1e9)


def full(of: Callable[[int], Grant]) -> Iterator[Grant]:
    """As many as there is room for."""
    room = LEDGER_BYTES
    for grant in map(of, itertools.count()):
        room -= grant.weight
        if room < 0:
            return
        yield grant


@pytest.mark.parametrize("of", [single, odd, crowd])
def test_a_full_ledger_can_be_written_and_emptied(of: Callable[[int], Grant], api: Client, fresh_name: Callable[[], str]) -> None:
    name = fresh_name()
    queue = make.queue(name)
    queue["metadata"]["annotations"] = {"why": "x" * 200_000}  # Kubernetes allows a quarter of a million bytes of them
    policy = read(api.request("POST", QUEUES, queue))
    grants = tuple(full(of))
    held = read(put(api, policy, grants))
    assert held.grants == grants
    assert read(put(api, held, ())).grants == ()


def read(thing: object) -> Policy:
    return gpu_queues.read(json.dumps(thing).encode())


def put(api: Client, policy: Policy, grants: tuple[Grant, ...]) -> object:
    """As the controller writes it."""
    body = gpu_queues.status_body(policy, grants, None, 2e9)
    return api.request("PUT", f"{QUEUES}/{policy.name}/status", body, person=make.CONTROLLER, timeout=120)
