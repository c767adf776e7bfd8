"""Metrics, the wheel of deadlines, the reference page and the places that settings come from."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from mlserving.errors import ConfigError
from mlserving.gateway.endpoints import available
from mlserving.gateway.metrics import CONTRACT, Metrics
from mlserving.gateway.settings import Backend, Model, Rollout, Track
from mlserving.gateway.sources import ConfigMapSource, FileSource, Reloading, source_of
from mlserving.gateway.timing import Wheel
from mlserving.reference import gateway_page
from mlserving.rollout.plan import Phase, Verdict

ROOT = Path(__file__).resolve().parents[4]


def a_call(version: int = 3) -> Any:
    return SimpleNamespace(spec=SimpleNamespace(name="m"), track=SimpleNamespace(track="stable"), protocol="grpc", version=version)


def told(metrics: Metrics) -> dict[str, list[Any]]:
    registry = CollectorRegistry()
    registry.register(metrics)
    families = text_string_to_metric_families(generate_latest(registry).decode())
    samples: dict[str, list[Any]] = {}
    for family in families:
        for sample in family.samples:
            samples.setdefault(sample.name, []).append(sample)
    return samples


def test_each_metric_has_the_labels_of_its_contract() -> None:
    metrics = Metrics()
    metrics.answered(a_call(), 3, "OK", 0.004, 0.0004)
    metrics.unrouted("", "rest", "404")
    metrics.shadow("m", "answered")
    metrics.retry("m", "canary")
    metrics.fallback("m", "canary")
    metrics.spooled("m", "stable")
    metrics.cut_off("grpc", "resets")
    metrics.connections = {"grpc": 1}
    found = told(metrics)
    for declared in CONTRACT:
        names = [f"{declared.name}_bucket"] if declared.kind == "histogram" else [declared.name]
        for sample in found.get(names[0], []):
            assert set(sample.labels) - {"le"} == set(declared.labels), declared.name
    assert {declared.name for declared in CONTRACT if declared.kind == "counter"} <= set(found)


def test_an_answer_of_no_version_names_none() -> None:
    metrics = Metrics()
    metrics.answered(a_call(), 0, "UNAVAILABLE", 0.004, None)
    assert told(metrics)["millrace_gateway_requests_total"][0].labels["version"] == ""


def a_fleet(rollout: Rollout | None) -> Any:
    settings = Model(tracks={Track.STABLE: Backend(grpc="a:1", rest="a:2", weight=100)}, rollout=rollout)
    return SimpleNamespace(models={"m": SimpleNamespace(name="m", settings=settings, weights_changed=1234.5, tracks={})})


def test_a_rollout_is_told_as_the_settings_tell_it() -> None:
    rollout = Rollout(id="r1", from_version=7, to_version=8, phase=Phase.HOLDING, step=1, steps=4, verdict=Verdict.UNCLEAR)
    found = told(Metrics(a_fleet(rollout)))
    contract = {declared.name: set(declared.labels) for declared in CONTRACT}
    ours = [sample for name, samples in found.items() if name.startswith("millrace_rollout_") for sample in samples]
    assert all(set(sample.labels) == contract[sample.name] and sample.labels["rollout"] == "r1" for sample in ours)
    assert {sample.labels["phase"]: sample.value for sample in found["millrace_rollout_phase"] if sample.value} == {"holding": 1}
    assert len(found["millrace_rollout_phase"]) == len(Phase)
    assert {sample.labels["verdict"] for sample in found["millrace_rollout_verdict"] if sample.value} == {"unclear"}
    assert [found[f"millrace_rollout_{name}"][0].value for name in ("step", "steps")] == [1, 4]
    assert found["millrace_rollout_info"][0].labels["to_version"] == "8"
    assert found["millrace_gateway_weights_changed_timestamp_seconds"][0].value == 1234.5


def test_where_there_was_no_rollout_none_is_told_of() -> None:
    assert not any(name.startswith("millrace_rollout_") for name in told(Metrics(a_fleet(None))))


def test_a_histogram_counts_up_and_its_sum_is_right() -> None:
    metrics = Metrics()
    for seconds in (0.0005, 0.001, 0.0011, 40.0):
        metrics.answered(a_call(), 3, "OK", seconds, None)
    buckets = {sample.labels["le"]: sample.value for sample in told(metrics)["millrace_gateway_request_seconds_bucket"]}
    assert (buckets["0.001"], buckets["0.002"], buckets["30"], buckets["+Inf"]) == (2, 3, 3, 4)
    assert told(metrics)["millrace_gateway_request_seconds_sum"][0].value == pytest.approx(40.0026)


def test_the_reference_page_is_up_to_date() -> None:
    assert (ROOT / "docs" / "reference" / "gateway.md").read_text() == gateway_page()


class Timed:
    def __init__(self, seconds: float) -> None:
        self.expires, self.slot, self.at = time.monotonic() + seconds, 0, 0.0

    def expire(self) -> None:
        self.at = time.monotonic()


def test_deadlines_end_what_is_late_and_nothing_before() -> None:
    async def run() -> None:
        wheel = Wheel()
        timed = [Timed(seconds) for seconds in (0.02, 0.05, 0.2, 0.0, -1.0)]
        for each in timed:
            wheel.add(each)
        wheel.remove(timed[1])
        await asyncio.sleep(0.1)
        assert [bool(each.at) for each in timed] == [True, False, False, True, True]
        assert timed[0].at >= timed[0].expires
        while not timed[2].at:  # noqa: ASYNC110  the wheel has no event
            await asyncio.sleep(0.01)
        assert timed[2].at >= timed[2].expires
        again = Timed(0.01)  # the wheel had stopped
        wheel.add(again)
        await asyncio.sleep(0.1)
        assert again.at

    asyncio.run(run())


def test_available_versions_are_read_from_a_status() -> None:
    states = b'{"model_version_status": [{"version": "12", "state": "AVAILABLE"}, {"version": "3", "state": "AVAILABLE"}, {"version": "13", "state": "LOADING"}]}'
    assert available(states) == (3, 12)
    for nonsense in (b"[]", b"{}", b"x", b'{"model_version_status": [{}]}'):
        with pytest.raises(ValueError, match=r"."):
            available(nonsense)


@pytest.mark.parametrize("text", ["configmap:", "configmap:a", "configmap:a/b/c/d", "configmap:/b"])
def test_a_configmap_that_is_not_spelled_so_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="configmap:NAMESPACE/NAME"):
        source_of(text)


def test_the_two_kinds_of_places() -> None:
    assert isinstance(source_of("gateway.yaml"), FileSource)
    found = source_of("configmap:ns/name/other.yaml")
    assert isinstance(found, ConfigMapSource)
    assert found.name == "ConfigMap ns/name, other.yaml"


def test_only_what_changed_and_can_be_meant_is_applied(tmp_path: Path) -> None:
    """Each look is a step of the test's."""
    file = tmp_path / "gateway.yaml"
    good = "models: {m: {tracks: {stable: {grpc: 'a:1', rest: 'a:2', weight: 100}}, deadline: %d}}"
    texts: list[str | None] = [good % 1, "models: [", "models: [", good % 2, good % 2, None, good % 2]
    applied: list[float] = []
    failures: list[str] = []

    async def next_look(_: float) -> None:
        if not texts:
            raise asyncio.CancelledError
        text = texts.pop(0)
        file.unlink(missing_ok=True) if text is None else file.write_text(text)

    async def run() -> None:
        file.write_text(good % 1)
        reloading = Reloading(FileSource(file), lambda settings, *_: applied.append(settings.models["m"].deadline), failures.append)
        await reloading.first()
        with pytest.raises(asyncio.CancelledError):
            await reloading.keep_looking(next_look)

    asyncio.run(run())
    assert applied == [2, 2]  # once when it changed, and once more when the file was there again
    assert len(failures) == 2
