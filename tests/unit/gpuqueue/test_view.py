"""What a replica has heard: which queues belong together, and that old news changes nothing."""

from __future__ import annotations

import json
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

import gpu_objects as make
from gpuqueue.cluster.access import Access
from gpuqueue.cluster.api import Api
from gpuqueue.cluster.gpu_queues import Policy, read
from gpuqueue.cluster.owners import Owners
from gpuqueue.cluster.pods import Facts
from gpuqueue.cluster.view import PodSink, View


def policy(name: str, pool: str | None = None, version: int = 1) -> Policy:
    thing = make.queue(name, **({"pool": {"name": pool, "maxBorrow": 1}} if pool else {}))
    thing["metadata"]["resourceVersion"] = str(version)
    return read(json.dumps(thing).encode())


def pod(name: str = "p", version: int = 1, **more: object) -> Facts:
    values = {
        "uid": name,
        "namespace": "a",
        "name": name,
        "version": str(version),
        "phase": "gated",
        "gpus": 1,
        "pins": {},
        "since": 0.0,
        "owner": None,
        "group": None,
        "size": 1,
        "run_limit": None,
        "family": "",
        "told": None,
        "running": False,
        "started": None,
        "managed": True,
    }
    return Facts(**{**values, **more})  # type: ignore[arg-type]


class Heard:
    """A view, and what it said had changed."""

    def __init__(self) -> None:
        self.news: list[str | None] = []
        self.view = View(Owners(Api(Access(server="http://nowhere")), lambda: None), self.news.append)


def groups(*policies: Policy) -> set[frozenset[str]]:
    view = Heard().view
    for each in policies:
        view.put_policy(each)
    return set(view.groups())


def test_queues_that_lend_and_borrow_are_together_and_others_apart() -> None:
    assert groups(policy("a"), policy("b")) == {frozenset("a"), frozenset("b")}
    assert groups(policy("a", "p"), policy("b", "p"), policy("p"), policy("c")) == {frozenset("abp"), frozenset("c")}
    assert groups(policy("a", "b"), policy("b", "c"), policy("c", "a")) == {frozenset("abc")}
    assert groups(policy("a", "gone")) == {frozenset("a")}
    assert groups() == set()


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from([None, *"abcdefx"])), max_size=8, unique_by=lambda pair: pair[0]))
def test_every_queue_is_in_one_group_and_with_its_pool(pairs: list[tuple[str, str | None]]) -> None:
    found = groups(*(policy(name, pool) for name, pool in pairs))
    names = [name for group in found for name in group]
    assert sorted(names) == sorted(name for name, _ in pairs)
    for name, pool in pairs:
        if pool in names:
            assert any({name, pool} <= group for group in found)


def test_what_is_older_than_our_own_write_is_no_news() -> None:
    heard = Heard()
    heard.view.put_pod(pod(version=5, phase="open"))
    heard.view.put_pod(pod(version=4))
    assert heard.view.pods["p"].phase == "open"
    heard.view.put_policy(policy("a", version=9))
    heard.news.clear()
    heard.view.put_policy(replace(policy("a", "p", version=8)))
    assert (heard.view.policies["a"].spec.pool, heard.news) == (None, [])


def test_a_round_is_due_when_something_that_it_looks_at_has_changed() -> None:
    heard = Heard()
    heard.view.put_policy(policy("a"))
    heard.news.clear()
    heard.view.put_pod(pod())
    heard.view.put_pod(pod(version=2, family="told something"))
    heard.view.put_pod(pod(version=3, phase="open"))
    assert heard.news == ["a", "a"]


def test_a_pod_that_ends_is_known_as_over_until_no_ledger_names_it() -> None:
    heard = Heard()
    heard.view.put_policy(policy("a"))
    sink = PodSink(heard.view)
    sink.put(pod())
    sink.drop(pod(version=2, phase="ended"))
    assert [each.phase for each in heard.view.seen()] == ["ended"]
    heard.view.prune()
    assert heard.view.seen() == []


def test_a_pod_that_has_vanished_alive_is_not_taken_to_be_over() -> None:
    """It may have lost our label and run on: that must be asked."""
    heard = Heard()
    PodSink(heard.view).put(pod(phase="open"))
    PodSink(heard.view).drop(pod(version=2, phase="open"))
    assert heard.view.seen() == []


def test_a_list_says_how_much_it_corrected() -> None:
    heard = Heard()
    heard.view.put_pod(pod("a"))
    heard.view.put_pod(pod("b"))
    assert heard.view.replace_pods({"a": pod("a"), "b": pod("b", version=2), "c": pod("c")}) == 2
    assert heard.view.replace_pods({"a": pod("a")}) == 2
