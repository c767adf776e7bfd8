"""What follows from a pod's JSON, however odd that is."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gpu_objects as make
from gpuqueue import labels
from gpuqueue.cluster.pods import Facts, PodObject, facts, moment, stem
from gpuqueue.quantities import UNREADABLE
from gpuqueue.queue import MOST_PODS

ACCELERATOR = "cloud.google.com/gke-accelerator"


def read(pod: dict[str, Any]) -> Facts:
    return facts(msgspec.json.decode(json.dumps(pod), type=PodObject), {})


def pod(
    *, notes: dict[str, str] | None = None, marks: dict[str, str] | None = None, status: dict[str, Any] | None = None, **spec: Any
) -> Facts:
    made = make.pod(gpus=1, **spec)
    made["metadata"] |= {"namespace": "team", "annotations": notes or {}, "labels": marks or {}}
    return read(made | {"status": status or {}})


def terms(*expressions: list[tuple[str, str, list[str]]]) -> dict[str, Any]:
    """A required node affinity of these terms."""
    said = [
        {"matchExpressions": [{"key": key, "operator": operator, "values": values} for key, operator, values in each]}
        for each in expressions
    ]
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": said}}}


@pytest.mark.parametrize(
    ("spec", "pinned"),
    [
        ({}, {}),
        ({"nodeSelector": {"a": "1"}}, {"a": "1"}),
        ({"affinity": terms([("a", "In", ["1"])])}, {"a": "1"}),
        ({"affinity": terms([("a", "In", ["1", "2"])])}, {}),
        ({"affinity": terms([("a", "NotIn", ["1"])])}, {}),
        ({"affinity": terms([("a", "Exists", [])])}, {}),
        ({"affinity": terms([("a", "In", ["1"]), ("b", "In", ["2"])], [("a", "In", ["1"])])}, {"a": "1"}),
        ({"affinity": terms([("a", "In", ["1"])], [("a", "In", ["2"])])}, {}),
        ({"affinity": terms([("a", "In", ["1"])]), "nodeSelector": {"a": "9"}}, {"a": "9"}),
        ({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}}}, {}),
        ({"affinity": {"podAffinity": {}}}, {}),
    ],
)
def test_only_what_holds_on_every_node_that_it_accepts_is_pinned(spec: dict[str, Any], pinned: dict[str, str]) -> None:
    assert pod(**spec).pins == pinned


def test_a_group_that_people_name_is_never_one_of_an_owner() -> None:
    """Those of owners are `job/NAME` and the like: an annotation can hold a slash, too."""
    assert pod(notes={labels.GROUP: "job/x", labels.GROUP_SIZE: "2"}).group == "named/job/x"
    assert pod(notes={labels.GROUP: "x", labels.GROUP_SIZE: "2"}).group == "x"


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("nightly-train-28391023-x7k2p", "nightly-train"),
        ("train-7d9c5b8f4-x2xlp", "train"),
        ("train", "train"),
        ("resnet50", "resnet50"),
        ("worker-0", "worker"),
        ("bert-large", "bert-large"),
        ("0", "0"),
        ("-1", "-1"),
        ("", ""),
    ],
)
def test_random_endings_are_no_part_of_a_family(name: str, family: str) -> None:
    assert stem(name) == family


def test_a_step_of_argo_is_of_the_family_of_its_workflow_and_step() -> None:
    made = make.argo_pod()
    made["metadata"]["namespace"] = "fraud"
    assert read(made).family == "fraud/train-transactions.root.train"
    made["metadata"]["annotations"]["workflows.argoproj.io/node-name"] = "train-transactions-x7k2p"
    assert read(made).family == "fraud/train-transactions"


@pytest.mark.parametrize("size", ["", "0", "-3", "many", "1.5", "٣", str(MOST_PODS + 1), "9" * 5000, " 2"])
def test_a_size_that_no_group_can_have_waits_for_ever_and_is_told(size: str) -> None:
    assert pod(notes={labels.GROUP: "g", labels.GROUP_SIZE: size}).size == MOST_PODS + 1


def test_a_group_is_what_annotation_or_label_say_the_annotation_first() -> None:
    found = pod(notes={labels.GROUP: "a", labels.GROUP_SIZE: "2"}, marks={labels.GROUP: "b", labels.GROUP_SIZE: "3"})
    assert (found.group, found.size) == ("a", 2)
    assert pod(marks={labels.GROUP: "b", labels.GROUP_SIZE: "3"}).size == 3
    assert (pod(notes={labels.GROUP_SIZE: "3"}).group, pod(notes={labels.GROUP: ""}).group) == (None, None)


@pytest.mark.parametrize(
    ("said", "deadline", "limit"),
    [(None, None, None), ("90m", None, 5400), ("90m", 60, 60), ("1m", 3600, 60), ("soon", 60, 60), ("0s", None, None), ("-1h", None, None)],
)
def test_the_run_limit_is_the_earlier_of_what_is_said_and_what_kubernetes_enforces(
    said: str | None, deadline: int | None, limit: float | None
) -> None:
    notes = {labels.RUN_LIMIT: said} if said is not None else {}
    assert pod(notes=notes, **({"activeDeadlineSeconds": deadline} if deadline else {})).run_limit == limit


@pytest.mark.parametrize(
    ("gates", "phase", "found"),
    [
        ([labels.GATE], "Pending", "gated"),
        (["other"], "Pending", "open"),
        (["other", labels.GATE], "", "gated"),
        ([], "Running", "open"),
        ([], "Unknown", "open"),
        ([], "Succeeded", "ended"),
        ([labels.GATE], "Failed", "ended"),
    ],
)
def test_phases(gates: list[str], phase: str, found: str) -> None:
    assert pod(schedulingGates=[{"name": gate} for gate in gates], status={"phase": phase}).phase == found


def test_what_is_longer_than_the_ledger_has_room_for_is_cut() -> None:
    """One entry that the API server refuses would keep the whole queue's ledger from being written."""
    long = pod(notes={labels.GROUP: "g" * 9999, labels.GROUP_SIZE: "2", "workflows.argoproj.io/node-name": "w." + "s" * 9999})
    assert (len(long.group or ""), long.size, len(long.family)) == (253, MOST_PODS + 1, 600)
    assert read(make.pod(gpus=9 * 10**18)).gpus == UNREADABLE


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2026-13-01T00:00:00Z", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "0001-01-01"]
)
def test_a_moment_that_is_none_is_none(text: str) -> None:
    assert isinstance(moment(text), float)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
TEXTS = st.sampled_from(["", "1", "-1", "1k", "Always", "In", "train-x7k2p", "2026-11-21T12:00:00Z", "Running"]) | st.text(max_size=9)


def perhaps(usual: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Mostly what it should be, sometimes anything."""
    return st.one_of(usual, usual, usual, JSON)


def things(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return perhaps(st.fixed_dictionaries({}, optional={name.removesuffix("_"): perhaps(field) for name, field in fields.items()}))


def some(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(perhaps(inner), max_size=2)


NOTES = st.dictionaries(
    st.sampled_from([labels.GROUP, labels.GROUP_SIZE, labels.RUN_LIMIT, labels.MANAGED, "workflows.argoproj.io/node-name"]), perhaps(TEXTS)
)
AMOUNTS = st.dictionaries(st.sampled_from(["nvidia.com/gpu", "nvidia.com/mig-1g.5gb", "cpu"]), perhaps(TEXTS | st.integers()))
CONTAINERS = some(things(resources=things(limits=AMOUNTS, requests=AMOUNTS), restartPolicy=TEXTS))
REQUIRED = things(nodeSelectorTerms=some(things(matchExpressions=some(things(key=TEXTS, operator=TEXTS, values=some(TEXTS))))))
PODS = st.fixed_dictionaries(
    {
        "metadata": things(
            name=TEXTS,
            namespace=TEXTS,
            uid=TEXTS,
            creationTimestamp=TEXTS,
            labels=NOTES,
            annotations=NOTES,
            ownerReferences=some(things(apiVersion=TEXTS, kind=TEXTS, name=TEXTS, uid=TEXTS, controller=st.booleans())),
        ),
        "spec": things(
            containers=CONTAINERS,
            initContainers=CONTAINERS,
            resourceClaims=some(JSON),
            nodeSelector=st.dictionaries(TEXTS, perhaps(TEXTS), max_size=2),
            affinity=things(nodeAffinity=things(requiredDuringSchedulingIgnoredDuringExecution=REQUIRED)),
            schedulingGates=some(things(name=TEXTS)),
            activeDeadlineSeconds=st.integers(),
            nodeName=TEXTS,
        ),
        "status": things(phase=TEXTS, startTime=TEXTS, conditions=some(things(type=TEXTS, status=TEXTS, message=TEXTS))),
    }
)


@given(PODS | JSON)
@settings(max_examples=1000, deadline=None)
def test_any_json_is_a_pod_or_said_not_to_be_one(thing: Any) -> None:
    """Whatever an API server sends, one object is left out at most: nothing else is raised."""
    try:
        decoded = msgspec.json.decode(json.dumps(thing), type=PodObject)
    except msgspec.MsgspecError:
        return
    found = facts(decoded, {})
    assert 0 <= found.gpus <= UNREADABLE
    assert 1 <= found.size <= MOST_PODS + 1
    assert found.group is None or 0 < len(found.group) <= 253
