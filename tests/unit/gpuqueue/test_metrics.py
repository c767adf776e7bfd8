"""The metrics contract: what a scrape shows is what is there now, under the names that rules and dashboards use."""

from __future__ import annotations

import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gpuqueue.accounts import Account
from gpuqueue.metrics import Metrics


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def scraped(metrics: Metrics, name: str) -> dict[tuple[str, ...], float]:
    """The values of one series in a scrape, by queue and whatever other label it has."""
    families = text_string_to_metric_families(metrics.page().decode())
    samples = [sample for family in families for sample in family.samples if sample.name == name]
    return {tuple(value for _, value in sorted(sample.labels.items(), reverse=True)): sample.value for sample in samples}


def test_a_lane_that_is_no_longer_there_vanishes(metrics: Metrics) -> None:
    metrics.replace(metrics.granted_gpus, {("fraud", "l4"): 3, ("fraud", "h100"): 1})
    metrics.replace(metrics.granted_gpus, {("fraud", "l4"): 4})
    assert scraped(metrics, "gpuqueue_granted_gpus") == {("fraud", "l4"): 4}


def test_values_must_have_the_declared_labels(metrics: Metrics) -> None:
    with pytest.raises(ValueError, match="label count"):
        metrics.replace(metrics.granted_gpus, {("fraud",): 3})


def test_counters_and_histograms_of_a_deleted_queue_vanish_and_others_go_on(metrics: Metrics) -> None:
    for queue in ("fraud", "vision"):
        metrics.ledger_writes.labels(queue).inc()
        metrics.wait_seconds.labels(queue, "l4").observe(7)
        metrics.idle_steps.labels(queue, "warn").inc()
    metrics.forget_queues(["vision"])
    assert scraped(metrics, "gpuqueue_ledger_writes_total") == {("vision",): 1}
    assert scraped(metrics, "gpuqueue_wait_seconds_count") == {("vision", "l4"): 1}
    assert scraped(metrics, "gpuqueue_idle_steps_total") == {("warn", "vision"): 1}


def test_a_queue_that_is_expected_starts_at_zero_and_keeps_what_it_has(metrics: Metrics) -> None:
    metrics.ledger_conflicts.labels("fraud").inc()
    metrics.expect_queues(iter(["fraud", "vision"]))
    assert scraped(metrics, "gpuqueue_ledger_conflicts_total") == {("fraud",): 1, ("vision",): 0}
    assert scraped(metrics, "gpuqueue_gate_refusals_total") == {("fraud",): 0, ("vision",): 0}


def test_a_replica_that_stops_leading_says_nothing_more_of_queues(metrics: Metrics) -> None:
    metrics.leader.set(1)
    metrics.orphan_pods.set(2)
    metrics.replace(metrics.head_wait_seconds, {("fraud", "l4"): 900})
    metrics.ledger_writes.labels("fraud").inc()
    metrics.stand_down()
    assert scraped(metrics, "gpuqueue_head_wait_seconds") == {}
    assert scraped(metrics, "gpuqueue_leader") == {(): 0}
    assert scraped(metrics, "gpuqueue_orphan_pods") == {(): 0}
    assert scraped(metrics, "gpuqueue_ledger_writes_total") == {("fraud",): 1}, "a counter that goes back to nothing looks like a restart"


def test_accounts_are_added_up_and_a_zero_is_said(metrics: Metrics) -> None:
    for _ in range(2):
        metrics.add_accounts({("fraud", "l4"): Account(held=60, used=20)})
    found = {name: scraped(metrics, f"gpuqueue_{name}_gpu_seconds_total") for name in ("held", "used", "unknown")}
    assert found == {"held": {("fraud", "l4"): 120}, "used": {("fraud", "l4"): 40}, "unknown": {("fraud", "l4"): 0}}


def test_two_controllers_in_one_process_share_nothing(metrics: Metrics) -> None:
    metrics.leader.set(1)
    assert scraped(Metrics(), "gpuqueue_leader") == {(): 0}


def test_what_is_declared_is_what_a_scrape_shows(metrics: Metrics) -> None:
    shown = set(re.findall(r"^# TYPE (\S+) (\w+)$", metrics.page().decode(), re.MULTILINE))
    assert shown == {(declared.name, declared.kind) for declared in metrics.contract}


def test_names_follow_the_conventions_of_prometheus(metrics: Metrics) -> None:
    for declared in metrics.contract:
        assert re.fullmatch(r"gpuqueue(_[a-z0-9]+)+", declared.name)
        assert declared.name.endswith("_total") == (declared.kind == "counter"), declared.name
        assert declared.help.endswith("."), declared.name
