"""A real Prometheus tells of a step what the gateways themselves do."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from gateway_pages import Page, serving
from mlserving.errors import Unavailable
from mlserving.rollout import states
from mlserving.rollout.observation import Observation
from mlserving.rollout.observe import ENDPOINT, Gateways, Prometheus
from prometheus_server import PrometheusServer, Series
from rollouts import rollout

pytestmark = pytest.mark.prometheus
SCRAPED_EVERY = 15
BEGAN = float(int(time.time()) - 3600)
_SAMPLES = (
    "millrace_gateway_requests_total",
    "millrace_gateway_request_seconds_bucket",
    "millrace_prediction_class_total",
    "millrace_gateway_fallbacks_total",
)


class Story:
    """Two gateways over time, scraped at each moment, and the mark in the middle."""

    def __init__(self) -> None:
        self.pages = [Page(), Page()]
        self.values: dict[tuple[str, tuple[tuple[str, str], ...]], dict[float, float]] = defaultdict(dict)
        self.now = BEGAN - 4 * SCRAPED_EVERY

    def pass_time(self, happens: Callable[[Page, Page], None] = lambda _one, _two: None) -> None:
        happens(*self.pages)
        for number, page in enumerate(self.pages):
            for sample in (sample for family in page.registry.collect() for sample in family.samples if sample.name in _SAMPLES):
                labels = {**sample.labels, "instance": f"gateway-{number}", "namespace": "serving"}
                self.values[sample.name, tuple(sorted(labels.items()))][self.now] = sample.value
        self.now += SCRAPED_EVERY

    def told_by_both(
        self, folder: Path, before: Callable[[Story], None], after: Callable[[Story], None]
    ) -> tuple[Observation, Observation]:
        """The observation by the gateways' own pages, and by Prometheus."""
        with ExitStack() as stack:
            source = Gateways(lambda: addresses)
            addresses = [stack.enter_context(serving(page)) for page in self.pages]
            before(self)
            marked, began = source.mark(rollout()), self.now - SCRAPED_EVERY
            state = states.counted(rollout(), marked, began)
            after(self)
            history = [Series(name=name, labels=dict(labels), values=values) for (name, labels), values in self.values.items()]
            server = stack.enter_context(PrometheusServer(folder, history))
            prometheus = Prometheus(server.url, 'namespace="serving"')
            until = self.now - SCRAPED_EVERY
            return source.observe(state, until), prometheus.observe(state, until)


def steady(story: Story) -> None:
    def happens(one: Page, two: Page) -> None:
        one.answer(10)
        two.answer(3)
        one.answer(50, track="stable", version=1)

    for _ in range(4):
        story.pass_time(happens)


def with_a_first_error(story: Story) -> None:
    def happens(one: Page, two: Page) -> None:
        one.answer(1, code="INTERNAL")
        two.fallbacks.labels("demo", "canary").inc(2)

    steady(story)
    story.pass_time(happens)
    steady(story)


def test_both_give_the_same_observation_also_of_errors_that_had_never_been_before(tmp_path: Path) -> None:
    ours, theirs = Story().told_by_both(tmp_path, steady, with_a_first_error)
    assert ours == theirs
    assert (ours.canary.requests, ours.canary.errors, ours.stable.requests) == (8 * 13 + 1 + 2, 3, 8 * 50)


def test_a_gateway_that_began_anew_is_counted_by_both(tmp_path: Path) -> None:
    """Prometheus' increase() reckons with what it did not see, so it is near and not the same."""

    def anew(story: Story) -> None:
        steady(story)
        story.pages[0].begin()
        steady(story)

    ours, theirs = Story().told_by_both(tmp_path, steady, anew)
    assert ours.canary.requests == 4 * 10 + 8 * 3
    assert theirs.canary.requests == pytest.approx(8 * 13, rel=0.2)
    assert theirs.stable.requests == pytest.approx(8 * 50, rel=0.2)


def test_prometheus_tells_too_whether_every_gateway_reaches_the_canary(tmp_path: Path) -> None:
    def told(folder: str, *reaching: float) -> bool:
        place = tmp_path / folder
        place.mkdir()
        now = float(int(time.time()))
        history = [
            Series(name=ENDPOINT, labels={"model": "demo", "namespace": "serving", "instance": f"gateway-{number}", **of}, values={now: up})
            for number, canary in enumerate(reaching)
            for of, up in (
                ({"track": "stable", "endpoint": "10.0.0.7:8500", "version": "1"}, 1.0),
                ({"track": "canary", "endpoint": "10.0.0.8:8500", "version": "2"}, canary),
            )
        ]
        with PrometheusServer(place, history) as server:
            return Prometheus(server.url, 'namespace="serving"').reaches(rollout(), 0)

    assert told("both", 1.0, 1.0)
    assert not told("one", 1.0, 0.0)


def test_a_server_that_is_away_is_said_to_be() -> None:
    with pytest.raises(Unavailable, match="did not answer"):
        Prometheus("http://127.0.0.1:9").mark(rollout())
